"""Codes and posteriors found by descent: closed forms, what may move and what may not, exact linear cases."""

import itertools
import math

import pytest
import torch
from chapter_cells import code_cells, read
from chapter_cells import tiny as tiny_settings
from scipy import integrate, stats
from torch import Tensor, nn
from torch.distributions import Distribution, Uniform, kl_divergence

from lib import autodecoder as ad
from lib import nets, train
from lib.data import Split

SHAPE = (1, 8, 8)

# --- latent distributions --------------------------------------------------------------------------

CLOSED_FORMS = {  # KL from the family's prior, by the formulas that the chapter derives
    "normal": lambda q: 0.5 * (q.loc**2 + q.scale**2 - 1 - 2 * q.scale.log()),
    "laplace": lambda q: q.loc.abs() + q.scale * torch.exp(-q.loc.abs() / q.scale) - 1 - q.scale.log(),
    "uniform": lambda q: math.log(2) - (q.high - q.low).log(),
    "exponential": lambda q: q.rate.log() + 1 / q.rate - 1,
}
SCIPY = {
    "normal": lambda q: stats.norm(q.loc.item(), q.scale.item()),
    "laplace": lambda q: stats.laplace(q.loc.item(), q.scale.item()),
    "uniform": lambda q: stats.uniform(q.low.item(), (q.high - q.low).item()),
    "exponential": lambda q: stats.expon(scale=1 / q.rate.item()),
}
PRIORS = {
    "normal": stats.norm(),
    "laplace": stats.laplace(),
    "uniform": stats.uniform(-1, 2),
    "exponential": stats.expon(),
}
NUMBERS = [(0.0, 0.0), (0.7, -1.5), (-2.0, 0.4), (1.3, -3.0)]
EXTREMES = [(loc, scale) for loc in (-30.0, -8.0, 8.0, 30.0) for scale in (-12.0, 0.0, 20.0)]


def posterior(name: str, loc: float, log_scale: float, shape: tuple[int, ...] = ()) -> Distribution:
    return ad.family(name).posterior(torch.full(shape, loc), torch.full(shape, log_scale))


@pytest.mark.parametrize("name", ad.FAMILIES)
@pytest.mark.parametrize("numbers", NUMBERS)
def test_kl_equals_its_closed_form_and_monte_carlo(name, numbers):
    torch.manual_seed(0)
    q, prior = posterior(name, *numbers), ad.family(name).prior
    kl = kl_divergence(q, prior)
    torch.testing.assert_close(kl, CLOSED_FORMS[name](q), rtol=1e-4, atol=1e-5)
    z = q.sample((100_000,))
    log_ratio = (q.log_prob(z) - prior.log_prob(z)).double()
    # 5 standard errors: one of 16 such tests fails by chance once in 100,000 runs
    assert abs(log_ratio.mean() - kl) <= 5 * log_ratio.std() / math.sqrt(len(z)) + 1e-5


@pytest.mark.parametrize("name", ad.FAMILIES)
@pytest.mark.parametrize("numbers", NUMBERS)
def test_kl_equals_scipys_integral_of_the_definition(name, numbers):
    q = posterior(name, *numbers)
    theirs, prior = SCIPY[name](q), PRIORS[name]
    ends = theirs.ppf([1e-13, 0.5, 1 - 1e-13])
    parts = [
        integrate.quad(lambda z: theirs.pdf(z) * (theirs.logpdf(z) - prior.logpdf(z)), low, high)[0]
        for low, high in itertools.pairwise(ends)
    ]
    assert kl_divergence(q, ad.family(name).prior).item() == pytest.approx(sum(parts), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ad.FAMILIES)
def test_kl_is_zero_only_for_the_prior_itself(name):
    at_prior = (0.0, 30.0) if name == "uniform" else (0.0, 0.0)
    assert kl_divergence(posterior(name, *at_prior), ad.family(name).prior).item() == pytest.approx(0, abs=3e-5)
    for numbers in NUMBERS[1:]:
        assert kl_divergence(posterior(name, *numbers), ad.family(name).prior) > 0.01


@pytest.mark.parametrize("name", ad.FAMILIES)
@pytest.mark.parametrize("numbers", EXTREMES + NUMBERS)
def test_no_numbers_lead_out_of_the_priors_support(name, numbers):
    torch.manual_seed(0)
    q, prior = posterior(name, *numbers, shape=(500,)), ad.family(name).prior
    assert prior.support.check(q.rsample()).all()
    assert prior.support.check(q.mean).all()
    kl = kl_divergence(q, prior)
    # exp(30) is a legal mean of an exponential, as far from its prior as that is; no KL may be infinite or nan
    assert kl.isfinite().all() and (kl >= 0).all()


@pytest.mark.parametrize("name", ad.FAMILIES)
def test_a_draw_has_the_distribution_that_it_claims_by_scipys_test(name):
    torch.manual_seed(0)
    q = posterior(name, 0.7, -0.5)
    z = q.rsample((5_000,))
    assert stats.kstest(z.numpy(), SCIPY[name](q).cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", ad.FAMILIES)
def test_gradients_of_draws_are_those_of_the_mean(name):
    """Reparameterisation: d/dloc E[z] from draws equals d/dloc of the mean; a draw by `sample` would have none."""
    torch.manual_seed(0)
    loc = torch.full((100_000,), 0.4, requires_grad=True)
    q = ad.family(name).posterior(loc, torch.full_like(loc, -1.0))
    drawn = torch.autograd.grad(q.rsample().sum(), loc)[0]
    exact = torch.autograd.grad(ad.family(name).posterior(loc, torch.full_like(loc, -1.0)).mean.sum(), loc)[0][0]
    assert exact.abs() > 0.1
    assert abs(drawn.mean() - exact) <= 5 * drawn.std() / math.sqrt(len(loc)) + 1e-6


@pytest.mark.parametrize("name", ad.FAMILIES)
def test_prior_samples_come_from_the_prior_of_the_kl(name):
    torch.manual_seed(0)
    z = ad.family(name).sample_prior(2_000, 3)
    assert z.shape == (2_000, 3)
    assert stats.kstest(z.flatten().numpy(), PRIORS[name].cdf).pvalue > 1e-4


def test_an_interval_that_sticks_out_has_an_infinite_kl_though_the_formula_says_otherwise():
    prior = Uniform(-1.0, 1.0)
    for low, high in ((0.5, 1.5), (-3.0, 3.0)):
        assert kl_divergence(Uniform(low, high), prior) == math.inf
    assert math.log(2) - math.log(3.0 - -3.0) < 0  # what the nested formula says of (−3, 3): no KL is negative


def test_a_free_interval_has_the_formula_for_its_divergence_nested_or_not():
    q = ad.FREE_UNIFORM.posterior(torch.tensor([0.0, 3.0]), torch.tensor([math.log(0.5), math.log(4.0)]))
    torch.testing.assert_close(kl_divergence(q, ad.FREE_UNIFORM.prior), torch.tensor([2.0, 0.25]).log())
    assert q.low[1] == -1 and q.high[1] == 7


def test_an_unknown_distribution_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'cauchy'.*normal, laplace, uniform, exponential"):
        ad.family("cauchy")


# --- what a step may move --------------------------------------------------------------------------


def tiny(latent_dim: int = 4) -> ad.GaussianDecoder:
    return ad.GaussianDecoder(nets.deconv_decoder(latent_dim, (6, 4), SHAPE))


def states(latents: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in latents.parameters()]


def latents_and_loss(kind: str, decoder: ad.GaussianDecoder, count: int):
    start = ad.normal_start(count, 4, 0.5)
    if kind == "codes":
        latents = ad.Codes(start)
        return latents, lambda x, index: ad.autodecoder_loss(decoder, latents(index), x, penalty=0.1)
    latents = ad.Posteriors(ad.family(kind), start)
    prior = latents.family.prior
    return latents, lambda x, index: ad.variational_loss(decoder, latents(index), prior, x)


@pytest.mark.parametrize("kind", ["codes", *ad.FAMILIES])
def test_a_step_moves_the_codes_of_its_batch_and_no_others(kind):
    torch.manual_seed(0)
    decoder, x = tiny(), torch.rand(6, *SHAPE)
    latents, loss_fn = latents_and_loss(kind, decoder, 6)
    step = ad.AutodecoderStep(decoder, latents, loss_fn, steps=9, lr=1e-2, latent_lr=1e-1)
    for rows in ([0, 1], [2, 3], [0, 3]):  # by the second step, rows 0 and 1 have momentum
        before, weights = states(latents), states(decoder)
        step((x[rows], torch.tensor(rows)))
        others = [row for row in range(6) if row not in rows]
        tables = states(latents) if kind != "exponential" else states(latents)[:1]  # it has no scale to move
        for old, new in zip(before, tables, strict=False):
            assert torch.equal(old[others], new[others])
            assert (old[rows] != new[rows]).any(1).all()
        assert any(not torch.equal(old, new) for old, new in zip(weights, states(decoder), strict=True))


def test_both_rates_fall_to_zero_along_a_cosine_and_the_decoder_trains():
    decoder, x = tiny(), torch.rand(4, *SHAPE)
    latents, loss_fn = latents_and_loss("codes", decoder, 4)
    step = ad.AutodecoderStep(decoder, latents, loss_fn, steps=8, lr=1e-2, latent_lr=0.3)
    decoder.eval()
    rates = []
    for _ in range(8):
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in step.optimizers])
        step((x, torch.arange(4)))
    assert decoder.training
    expected = [0.5 * (1 + math.cos(math.pi * done / 8)) for done in range(8)]
    for column, rate in ((0, 1e-2), (1, 0.3)):
        assert [row[column] for row in rates] == pytest.approx([rate * share for share in expected])
    assert [optimizer.param_groups[0]["lr"] for optimizer in step.optimizers] == pytest.approx([0, 0])


def test_posteriors_begin_where_they_were_told_and_are_decoded_at_their_means():
    loc = torch.full((3, 2), 0.7)
    for name in ad.FAMILIES:
        latents = ad.Posteriors(ad.family(name), loc, log_scale=-1.3)
        q = latents(torch.arange(3))
        torch.testing.assert_close(latents.all(), q.mean.detach())
        expected = ad.family(name).posterior(loc, torch.full_like(loc, -1.3))
        torch.testing.assert_close(q.stddev.detach(), expected.stddev)
    exponential = ad.Posteriors(ad.family("exponential"), loc)
    torch.testing.assert_close(exponential.all(), loc.exp())


def test_codes_do_not_share_memory_with_what_they_began_from():
    start = torch.zeros(3, 2)
    codes = ad.Codes(start)
    with torch.no_grad():
        codes.table.weight.add_(1)
    assert not start.any()


def test_plain_adam_would_move_the_codes_of_earlier_batches():
    """The trap that the step avoids: with a dense gradient of 0, Adam's momentum still moves a row."""
    table = nn.Embedding(4, 2)
    optimizer = torch.optim.Adam(table.parameters(), 0.1)
    for row in (0, 1):
        before = table.weight.detach().clone()
        optimizer.zero_grad()
        table(torch.tensor([row])).pow(2).sum().backward()
        optimizer.step()
    assert not torch.equal(before[0], table.weight[0])


def test_a_killed_training_resumes_to_the_same_codes(tmp_path):
    def run(checkpoint, steps_alive):
        train.seed(0)
        decoder, x = tiny(), torch.rand(10, *SHAPE)
        latents, loss_fn = latents_and_loss("normal", decoder, 10)
        alive = 0

        def mortal(x: Tensor, index: Tensor) -> train.Losses:
            nonlocal alive
            alive += 1
            if alive > steps_alive:
                raise KeyboardInterrupt
            return loss_fn(x, index)

        step = ad.AutodecoderStep(decoder, latents, mortal, 12, 1e-2, 1e-1)
        batches = train.Batches(x, torch.arange(10), batch_size=4)
        train.fit(step, batches, 12, checkpoint=checkpoint, checkpoint_every=5)
        return states(latents) + states(decoder)

    whole = run(tmp_path / "whole", 99)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 8)
    for ours, theirs in zip(run(tmp_path / "killed", 99), whole, strict=True):
        assert torch.equal(ours, theirs)


def test_training_restores_its_images():
    train.seed(0)
    decoder, x = tiny(), (torch.rand(8, *SHAPE) > 0.5).float()
    latents, loss_fn = latents_and_loss("codes", decoder, 8)
    step = ad.AutodecoderStep(decoder, latents, loss_fn, 150, 3e-2, 1e-1)
    history = train.fit(step, train.Batches(x, torch.arange(8), batch_size=8), 150)
    assert history["squared_error"][-1] < 0.4 * history["squared_error"][0]


# --- objectives ------------------------------------------------------------------------------------


def test_the_autodecoder_loss_sums_over_pixels_and_averages_over_images():
    decoder, x, z = tiny().eval(), torch.rand(5, *SHAPE), torch.randn(5, 4)
    losses = ad.autodecoder_loss(decoder, z, x, penalty=0.3)
    by_hand = sum(((x[i] - decoder(z)[i]) ** 2).sum() + 0.3 * (z[i] ** 2).sum() for i in range(5)) / 5
    torch.testing.assert_close(losses["loss"], by_hand)
    torch.testing.assert_close(losses["squared_norm"], (z**2).sum() / 5)


def test_the_log_likelihood_is_a_density_over_pixels():
    torch.manual_seed(0)
    decoder = tiny().eval()
    q = ad.family("normal").posterior(torch.zeros(3, 4), torch.full((3, 4), -30.0))  # a point, so z is known
    x = torch.rand(3, *SHAPE)
    log_likelihood, kl = ad.elbo_terms(decoder, q, ad.family("normal").prior, x)
    x_hat = decoder(torch.zeros(3, 4)).detach().numpy()
    sigma = decoder.log_sigma.exp().item()
    expected = stats.norm(x_hat, sigma).logpdf(x.numpy()).reshape(3, -1).sum(1)
    torch.testing.assert_close(log_likelihood.double(), torch.from_numpy(expected).double(), rtol=1e-4, atol=1e-3)
    assert log_likelihood.shape == kl.shape == (3,)


def test_a_kl_weight_of_zero_minimises_the_likelihood_alone():
    decoder, x = tiny().eval(), torch.rand(3, *SHAPE)
    latents = ad.Posteriors(ad.family("normal"), ad.normal_start(3, 4, 1.0))
    prior = latents.family.prior
    for weight in (0.0, 1.0, 2.5):
        losses = ad.variational_loss(decoder, latents(torch.arange(3)), prior, x, weight)
        torch.testing.assert_close(losses["loss"], weight * losses["kl"] - losses["log_likelihood"])
        assert losses["kl"] > 0


# --- inference -------------------------------------------------------------------------------------


class Linear(ad.GaussianDecoder):
    """x_hat = W z without a sigmoid: the model whose best codes and posteriors are known."""

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z)


def linear_model(sigma: float) -> tuple[Linear, Tensor, Tensor]:
    """A linear decoder (6 pixels, 2 numbers), its W, and 5 images of 8-bit pixels."""
    torch.manual_seed(0)
    network = nn.Linear(2, 6, bias=False)
    nn.init.normal_(network.weight)
    decoder = Linear(nn.Sequential(network, nn.Unflatten(1, (1, 1, 6))), math.log(sigma))
    return decoder, network.weight.detach().clone(), torch.randint(0, 256, (5, 1, 1, 6)).byte()


def test_inference_finds_the_ridge_regression_of_a_linear_decoder():
    decoder, w, images = linear_model(0.1)
    latents, penalty = ad.Codes(torch.zeros(5, 2)), 0.7

    def terms(x: Tensor, index: Tensor) -> Tensor:
        z = latents(index)
        return ad.squared_error(decoder, z, x) + penalty * (z**2).sum(1)

    ad.infer(decoder, latents, terms, images, steps=300, lr=0.05)
    exact = torch.linalg.solve(w.T @ w + penalty * torch.eye(2), w.T @ (images.flatten(1) / 255).T).T
    torch.testing.assert_close(latents.all(), exact, atol=1e-4, rtol=1e-3)


def test_inference_by_the_elbo_finds_the_exact_mean_field_posterior_of_a_linear_gaussian_model():
    """The mean is the exact posterior's, the variance 1 / (‖w_d‖²/σ² + 1) (Bishop, 2006, section 10.1.2)."""
    sigma = 0.5
    decoder, w, images = linear_model(sigma)
    latents = ad.Posteriors(ad.family("normal"), torch.zeros(5, 2), log_scale=0.0)
    prior = latents.family.prior

    def terms(x: Tensor, index: Tensor) -> Tensor:
        log_likelihood, kl = ad.elbo_terms(decoder, latents(index), prior, x)
        return kl - log_likelihood

    torch.manual_seed(0)
    ad.infer(decoder, latents, terms, images, steps=1_500, lr=0.05)
    q = latents(torch.arange(5))
    precision = w.T @ w / sigma**2 + torch.eye(2)
    mean = torch.linalg.solve(precision, w.T @ (images.flatten(1) / 255).T / sigma**2).T
    # Gradients are noisy, and the cosine averages them to a part of a posterior's deviation, 0.2 here. A wrong weight
    # between the terms shows in the variance, a wrong sign or scale in the mean.
    torch.testing.assert_close(q.mean, mean, atol=0.1, rtol=0)
    torch.testing.assert_close(q.variance, (1 / precision.diagonal()).expand(5, 2), atol=0, rtol=0.15)


def test_inference_leaves_the_decoder_and_its_batch_norm_as_they_were():
    torch.manual_seed(0)
    decoder, images = tiny().train(), torch.randint(0, 256, (7, *SHAPE)).byte()
    decoder.log_sigma.requires_grad_(False)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    latents = ad.Codes(ad.normal_start(7, 4, 0.01))
    curve = ad.infer(decoder, latents, lambda x, i: ad.squared_error(decoder, latents(i), x), images, 30)
    assert curve.shape == (30,) and curve[-1] < curve[0]
    assert any("running_var" in name for name in before)
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())
    assert all(module.training for module in decoder.modules())
    assert all(parameter.grad is None for parameter in decoder.parameters())
    assert [p.requires_grad for p in decoder.parameters()] == [p is not decoder.log_sigma for p in decoder.parameters()]


def test_the_code_of_an_image_does_not_depend_on_its_neighbours():
    """It would, if batch norm still took its statistics from the batch."""
    torch.manual_seed(0)
    decoder, images = tiny(), torch.randint(0, 256, (6, *SHAPE)).byte()
    decoder(torch.randn(64, 4))
    found = []
    for count, batch in ((6, 6), (6, 2), (2, 2)):
        latents = ad.Codes(torch.zeros(count, 4))

        def terms(x: Tensor, index: Tensor, latents: ad.Codes = latents) -> Tensor:
            return ad.squared_error(decoder, latents(index), x)

        ad.infer(decoder, latents, terms, images[:count], steps=20, batch=batch)
        found.append(latents.all()[:2])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(found[0], found[2], atol=1e-4, rtol=1e-3)


def test_the_curve_is_the_mean_loss_of_all_images_in_whatever_batches():
    decoder, _, _ = linear_model(0.1)
    images = torch.randint(0, 256, (7, 1, 1, 6)).byte()
    found = []
    for batch in (3, 7):  # with 3, the last batch holds a single image
        latents = ad.Codes(torch.ones(7, 2))

        def terms(x: Tensor, index: Tensor, latents: ad.Codes = latents) -> Tensor:
            return ad.squared_error(decoder, latents(index), x)

        begun = terms(images / 255, torch.arange(7)).mean().item()
        curve = ad.infer(decoder, latents, terms, images, steps=25, batch=batch)
        assert curve[0].item() == pytest.approx(begun, rel=1e-5)
        assert (latents.all() != 1).any(1).all(), "every image has been fitted"
        found.append((curve, latents.all()))
    torch.testing.assert_close(found[0], found[1])


def test_inference_spends_its_budget_and_no_more():
    decoder, images, calls = tiny(), torch.zeros(4, *SHAPE).byte(), []
    latents = ad.Codes(torch.zeros(4, 4))

    def terms(x: Tensor, index: Tensor) -> Tensor:
        calls.append(index.tolist())
        return ad.squared_error(decoder, latents(index), x)

    ad.infer(decoder, latents, terms, images, steps=3, batch=2)
    assert calls == [[0, 1]] * 3 + [[2, 3]] * 3
    with pytest.raises(ValueError, match="at least one step"):
        ad.infer(decoder, latents, terms, images, steps=0)


# --- starts and classes ----------------------------------------------------------------------------


def test_starts_have_the_size_asked_for():
    torch.manual_seed(0)
    z = ad.normal_start(4_000, 8, 0.1)
    assert z.shape == (4_000, 8) and z.std() == pytest.approx(0.1, rel=0.03)
    with pytest.raises(ValueError, match="latent_dim=0"):
        ad.normal_start(5, 0, 0.1)


def test_a_classwise_start_gives_one_code_to_each_class():
    torch.manual_seed(0)
    labels = torch.tensor([2, 0, 2, 1, 0])
    z = ad.classwise_start(labels, 6, 1.0)
    assert torch.equal(z[0], z[2]) and torch.equal(z[1], z[4])
    assert not torch.equal(z[0], z[1]) and not torch.equal(z[0], z[3])


def test_the_first_image_of_a_class_or_a_clear_refusal():
    split = Split(torch.zeros(4, 1, 2, 2).byte(), torch.tensor([1, 0, 1, 0]))
    assert ad.first_of_class(split, ("Trouser", "Shirt", "Bag"), "Trouser") == 1
    with pytest.raises(ValueError, match=r"no class 'Trousers'.*Trouser, Shirt, Bag"):
        ad.first_of_class(split, ("Trouser", "Shirt", "Bag"), "Trousers")
    with pytest.raises(ValueError, match="None of the 4 images is of class 'Bag'"):
        ad.first_of_class(split, ("Trouser", "Shirt", "Bag"), "Bag")


def test_an_averaged_error_stands_in_the_likelihoods_place_and_the_kl_stays_a_sum():
    torch.manual_seed(0)
    decoder, x = tiny().eval(), torch.rand(3, *SHAPE)
    q = posterior("normal", 0.5, -20.0, (3, 4))
    losses = ad.variational_loss(decoder, q, ad.family("normal").prior, x, averaged=True)
    error = ((x - decoder(torch.full((3, 4), 0.5))) ** 2).mean()
    assert losses["loss"].item() == pytest.approx((error + losses["kl"]).item(), rel=1e-5)


# --- other decoders, other codes -------------------------------------------------------------------


def test_a_decoder_may_leave_the_sigmoid_out():
    numbers = torch.tensor([[-1.0, 0.0, 2.0]])
    torch.testing.assert_close(ad.GaussianDecoder(nn.Identity())(numbers), numbers.sigmoid())
    torch.testing.assert_close(ad.GaussianDecoder(nn.Identity(), output=torch.Tensor.float)(numbers), numbers)


def test_a_sphere_sees_directions_only_and_codes_of_length_root_d():
    seen = ad.Sphere(nn.Identity())(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    torch.testing.assert_close(seen, math.sqrt(2) * torch.tensor([[0.6, 0.8], [0.6, 0.8]]))


def test_shorter_codes_and_larger_weights_make_the_same_images():
    """Why nothing in the objective holds the length of codes: only the penalty falls."""
    torch.manual_seed(0)
    decoder, z = tiny().eval(), torch.randn(16, 4)
    with torch.no_grad():
        before = decoder(z)
        decoder.network[0].weight *= 4
        torch.testing.assert_close(decoder(z / 4), before)


def test_pixels_that_are_not_visible_count_for_nothing():
    decoder, _, images = linear_model(0.1)
    x, z = images / 255, torch.randn(5, 2)
    visible = torch.tensor([1.0, 1, 1, 0, 0, 0]).view(1, 1, 1, 6)
    expected = ((x - decoder(z)) ** 2)[..., :3].sum((1, 2, 3))
    torch.testing.assert_close(ad.squared_error(decoder, z, x, visible), expected)


def test_an_origin_code_is_one_step_of_descent_and_can_be_differentiated():
    """For x_hat = W z the gradient at 0 is −2 Wᵀ x."""
    decoder, w, images = linear_model(0.1)
    x = images / 255
    z = ad.origin_code(decoder, x, 2)
    torch.testing.assert_close(z, 2 * x.flatten(1) @ w)
    ad.squared_error(decoder, z, x).sum().backward()
    assert decoder.network[0].weight.grad.abs().min() > 0
    with train.evaluating(decoder):
        assert not ad.origin_code(decoder, x, 2).requires_grad


# --- a model as a whole ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["codes", "normal", "exponential"])
def test_a_model_knows_its_loss_its_draws_and_fresh_latents(kind):
    torch.manual_seed(0)
    decoder, start = tiny(), ad.normal_start(6, 4, 0.5)
    known = None if kind == "codes" else ad.family(kind)
    model = ad.Model(decoder, ad.Posteriors(known, start) if known else ad.Codes(start), penalty=0.1)
    assert model.family == known
    assert type(model.fresh(3)) is type(model.latents) and model.fresh(3).all().shape == (3, 4)
    assert model.draws().shape == (6, 4) and not model.draws().requires_grad
    assert ("kl" in model.loss(torch.rand(2, *SHAPE), torch.tensor([0, 5]))) == (known is not None)


def test_what_is_hidden_is_restored_from_what_is_visible():
    """Without noise two numbers follow from three pixels, and the other three from them."""
    decoder, w, _ = linear_model(0.05)
    truth = torch.tensor([[0.3, -0.2], [0.1, 0.4]])
    x = (truth @ w.T).view(2, 1, 1, 6)
    low = x.min()
    images = ((x - low) / (x.max() - low) * 255).round().byte()
    exact = torch.linalg.lstsq(w[:3], (images.flatten(1) / 255)[:, :3].T).solution.T
    visible = torch.tensor([1.0, 1, 1, 0, 0, 0]).view(1, 1, 1, 6)
    z, x_hat, curve = ad.restore(ad.Model(decoder, ad.Codes(torch.zeros(1, 2))), images, 600, 0.05, visible)
    error = (decoder(z) - images / 255)[..., :3].square().sum()
    best = (exact @ w[:3].T - (images.flatten(1) / 255)[:, :3]).square().sum()
    assert error.item() == pytest.approx(best.item(), rel=0.02, abs=1e-3)
    assert x_hat.shape == images.shape and len(curve) == 600


def test_posteriors_fitted_by_the_elbo_are_drawn_to_the_prior():
    decoder, _, images = linear_model(1.0)
    model = ad.Model(decoder, ad.Posteriors(ad.family("normal"), torch.zeros(1, 2)))
    torch.manual_seed(0)
    by_error, by_elbo = (ad.restore(model, images, 200, 0.05, by_elbo=flag)[0].norm() for flag in (False, True))
    assert by_elbo < by_error


# --- what the chapter refuses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"latent_dim": 400}, "latent_dim = 400: at most 60, the training images"),
        ({"walk": ["0", "9", "Shirt"]}, "no such class. Choose one of: 0, 1"),
        ({"walk": ["0", "7"]}, "name three classes, as first, passed, last"),
        ({"report_channels": [4] * 6}, "Images of 28×28 pixels: 6 entries of channels"),
    ],
)
def test_the_chapter_refuses_before_anything_trains(monkeypatch, wrong, message):
    settings = {**tiny_settings("02_autodecoders"), "device": "cpu", **wrong}
    cells = code_cells(read("02_autodecoders"))
    namespace = {"In": ["", cells[0].source]}
    exec(cells[0].source, namespace)
    namespace |= settings
    exec(cells[1].source, namespace)
    data = next(cell for cell in cells if "measure" in cell.metadata.get("tags", []))
    with pytest.raises(ValueError, match=message):
        exec(data.source, namespace)


# --- steps, once more ------------------------------------------------------------------------------


def test_rates_that_do_not_fall_stay_and_need_no_schedulers():
    decoder, x = tiny(), torch.rand(4, *SHAPE)
    latents, loss_fn = latents_and_loss("codes", decoder, 4)
    step = ad.AutodecoderStep(decoder, latents, loss_fn, steps=3, lr=1e-2, latent_lr=0.3, falling=False)
    for _ in range(3):
        losses = step((x, torch.arange(4)))
    assert [optimizer.param_groups[0]["lr"] for optimizer in step.optimizers] == [1e-2, 0.3]
    assert not any(value.requires_grad for value in losses.values()), "losses are kept for long, graphs are not"
    assert list(step.parts) == ["decoder", "latents", "optimizer 0", "optimizer 1"]


def test_gradients_of_one_step_are_not_in_the_next():
    torch.manual_seed(0)
    decoder, x = tiny(), torch.rand(4, *SHAPE)
    latents, loss_fn = latents_and_loss("codes", decoder, 4)
    step = ad.AutodecoderStep(decoder, latents, loss_fn, steps=9, lr=0.0, latent_lr=1e-30)  # nothing moves
    found = []
    for _ in range(2):
        step((x, torch.arange(4)))
        gradients = [weight.grad for module in (decoder, latents) for weight in module.parameters()]
        found.append([grad.to_dense().clone() for grad in gradients if grad is not None])
    torch.testing.assert_close(found[0], found[1])


def test_each_batch_of_inference_has_the_whole_cosine_and_an_optimizer_of_its_own(monkeypatch):
    seen = []

    class Recording(torch.optim.SparseAdam):
        def step(self, closure=None):
            seen.append((id(self), *(self.param_groups[0][name] for name in ("lr", "betas"))))
            kept.append(self)
            return super().step(closure)

    kept = []
    monkeypatch.setattr(torch.optim, "SparseAdam", Recording)
    decoder, _, images = linear_model(0.1)
    latents = ad.Codes(torch.zeros(5, 2))

    def terms(x: Tensor, index: Tensor) -> Tensor:
        return ad.squared_error(decoder, latents(index), x)

    ad.infer(decoder, latents, terms, images, steps=4, lr=0.3, batch=3, betas=(0.5, 0.8))
    expected = [0.15 * (1 + math.cos(math.pi * step / 4)) for step in range(4)] * 2
    assert [lr for _, lr, _ in seen] == pytest.approx(expected)
    assert {betas for *_, betas in seen} == {(0.5, 0.8)}
    assert len({number for number, *_ in seen[:4]}) == 1 and len({number for number, *_ in seen}) == 2


@pytest.mark.parametrize("kind", ["codes", "normal by error", "normal by elbo"])
def test_what_restoring_minimises_is_its_formula(monkeypatch, kind):
    """‖visible · (x − g(z))‖² + penalty ‖z‖²; at a VAD's mean; or at a draw over 2σ², and the KL from the prior."""
    decoder, _, images = linear_model(0.7)
    start = torch.randn(5, 2)
    latents = ad.Codes(start) if kind == "codes" else ad.Posteriors(ad.family("normal"), start)
    model, seen = ad.Model(decoder, latents, penalty=0.3, start=0.5), {}

    def recorded(decoder, latents, terms, images, steps, lr, **options):
        seen.update(options, latents=latents, terms=terms, steps=steps, lr=lr)
        return torch.zeros(steps)

    monkeypatch.setattr(ad, "infer", recorded)
    visible = torch.tensor([1.0, 1, 1, 0, 0, 0]).view(1, 1, 1, 6)
    z, x_hat, curve = ad.restore(model, images, 7, 0.05, visible, by_elbo=kind.endswith("elbo"))
    assert (seen["steps"], seen["lr"], len(curve)) == (7, 0.05, 7)
    assert torch.equal(z, seen["latents"].all()) and torch.equal(x_hat, decoder(z).detach())
    x, index = images / 255, torch.arange(5)
    torch.manual_seed(3)
    found = seen["terms"](x, index)
    if kind == "codes":
        expected = ad.squared_error(decoder, z, x, visible) + 0.3 * (z**2).sum(1)
    elif kind == "normal by error":
        expected = ad.squared_error(decoder, z, x, visible)
    else:
        torch.manual_seed(3)
        q = seen["latents"](index)
        error = ((x - decoder(q.rsample())) ** 2)[..., :3].sum((1, 2, 3))
        expected = error / (2 * 0.7**2) + CLOSED_FORMS["normal"](q).sum(1)
    torch.testing.assert_close(found, expected)


def test_fresh_latents_begin_as_near_the_middle_as_the_model_says():
    torch.manual_seed(0)
    for latents in (ad.Codes(torch.zeros(2, 3)), ad.Posteriors(ad.family("normal"), torch.zeros(2, 3))):
        for options, spread in (({}, 0.01), ({"start": 0.3}, 0.3)):
            found = ad.Model(tiny(3), latents, **options).fresh(4_000).all()
            assert found.std().item() == pytest.approx(spread, rel=0.05)  # a standard error is 0.6 %


def test_draws_of_posteriors_are_draws_and_those_of_codes_the_codes():
    torch.manual_seed(0)
    codes, q = torch.randn(2_000, 3), ad.family("normal")
    assert torch.equal(ad.Model(tiny(3), ad.Codes(codes)).draws(), codes)
    drawn = ad.Model(tiny(3), ad.Posteriors(q, codes, log_scale=-1.0)).draws() - codes
    assert stats.kstest(drawn.flatten().numpy(), stats.norm(scale=math.exp(-1)).cdf).pvalue > 1e-4


def test_a_models_loss_has_its_penalty_its_prior_and_the_options_given():
    torch.manual_seed(0)
    decoder, x, index = tiny().eval(), torch.rand(2, *SHAPE), torch.tensor([1, 3])
    codes = ad.Codes(torch.randn(5, 4))
    losses = ad.Model(decoder, codes, penalty=0.7).loss(x, index)
    torch.testing.assert_close(losses["loss"], losses["squared_error"] + 0.7 * losses["squared_norm"])
    torch.testing.assert_close(losses["squared_norm"], (codes.all()[index] ** 2).sum(1).mean())
    posteriors = ad.Posteriors(ad.family("laplace"), torch.randn(5, 4))
    losses = ad.Model(decoder, posteriors).loss(x, index, kl_weight=0.0)
    torch.testing.assert_close(losses["loss"], -losses["log_likelihood"])
    torch.testing.assert_close(losses["kl"], CLOSED_FORMS["laplace"](posteriors(index)).sum(1).mean())


def test_models_begin_with_the_documented_numbers():
    assert ad.GaussianDecoder(nn.Identity()).log_sigma.item() == -2
    q = ad.Posteriors(ad.family("normal"), torch.zeros(1, 2))(torch.tensor([0]))
    torch.testing.assert_close(q.stddev.detach(), torch.full((1, 2), math.exp(-2)))
    losses = ad.autodecoder_loss(tiny(), torch.ones(2, 4), torch.rand(2, *SHAPE))
    assert losses["loss"] == losses["squared_error"], "no penalty unless one is asked for"


def test_codes_of_classes_are_as_far_apart_as_asked():
    torch.manual_seed(0)
    z = ad.classwise_start(torch.arange(2_000), 4, 0.3)
    assert z.shape == (2_000, 4) and z.std().item() == pytest.approx(0.3, rel=0.05)


def test_only_rows_that_were_read_get_gradients():
    codes = ad.Codes(torch.randn(5, 2))
    codes(torch.tensor([3, 1])).sum().backward()
    assert sorted(codes.table.weight.grad.coalesce().indices()[0].tolist()) == [1, 3]
    assert not codes.all().requires_grad


def test_what_was_restored_comes_in_evaluation_mode_and_without_a_graph():
    torch.manual_seed(0)
    decoder, images = tiny(), torch.randint(0, 256, (3, *SHAPE)).byte()
    decoder(torch.randn(64, 4))  # batch norm's statistics are not those of three images
    z, x_hat, _ = ad.restore(ad.Model(decoder, ad.Codes(torch.zeros(1, 4))), images, 5, 0.05)
    assert decoder.training and not z.requires_grad and not x_hat.requires_grad
    torch.testing.assert_close(x_hat, decoder.eval()(z).detach())
