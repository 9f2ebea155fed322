import itertools
import math

import numpy as np
import pytest
import torch
from tiny import binary_images, linear_model, tiny_vae
from torch import nn
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal, kl_divergence

from lib import likelihood, nets, optim
from lib.likelihood import BernoulliVAE, Flow, importance_sampling
from lib.linear_gaussian import LinearGaussian


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def marginal_by_quadrature(vae: BernoulliVAE, x: torch.Tensor) -> torch.Tensor:
    """log p(x) of a model with one latent, by Gauss–Hermite quadrature over z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    z = torch.tensor(nodes, dtype=torch.float32)[:, None, None].expand(-1, len(x), 1)
    log_weights = torch.tensor(np.log(weights / weights.sum() + 1e-300))[:, None]
    with torch.no_grad():
        return torch.logsumexp(vae.log_likelihood(x, z).double() + log_weights, 0)


# --- the Bernoulli likelihood ----------------------------------------------------------------------


def test_log_likelihood_is_that_of_torch_distributions():
    x, logits = binary_images(5), 3 * torch.randn(7, 5, 1, 4, 4)
    reference = Independent(Bernoulli(logits=logits), 3).log_prob(x)
    torch.testing.assert_close(likelihood.bernoulli_log_likelihood(x, logits), reference)


def test_probabilities_of_all_binary_images_sum_to_one():
    logits = torch.randn(1, 1, 1, 2, 2)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).view(16, 1, 2, 2)
    log_p = likelihood.bernoulli_log_likelihood(images, logits.expand(1, 16, 1, 2, 2))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("x", [torch.full((1, 1, 4, 4), 0.5), torch.full((1, 1, 4, 4), 255.0), -torch.ones(1, 1, 4, 4)])
def test_pixels_that_are_not_binary_are_refused_everywhere(x):
    vae = tiny_vae()
    for use in (
        lambda: likelihood.elbo_loss(vae, x),
        lambda: likelihood.iwae_loss(vae, x, 2),
        lambda: likelihood.dreg_loss(vae, x, 2),
        lambda: likelihood.elbo(vae, x),
        lambda: importance_sampling(vae, x, 2),
    ):
        with pytest.raises(ValueError, match=r"outside \{0, 1\}"):
            use()


def test_binarise_keeps_the_mean_and_repeats_with_its_generator():
    x = torch.rand(1, 1, 8, 8).expand(4000, 1, 8, 8)
    draws = [likelihood.binarise(x, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)
    assert set(draws[0].unique().tolist()) == {0.0, 1.0}
    # 64 means of 4,000 draws: each within 4.5 of its standard errors, at most 0.5/√4000
    assert (draws[0].mean(0) - x[0]).abs().max() < 4.5 * 0.5 / math.sqrt(4000)


def test_sizes_that_disagree_are_refused():
    shape = (1, 4, 4)
    encoder, decoder = nets.mlp_encoder(shape, [8], 6), nets.mlp_decoder(3, [8], shape)
    with pytest.raises(ValueError, match="mu and logvar"):
        BernoulliVAE(encoder, nets.mlp_decoder(4, [8], shape), 4, shape)
    with pytest.raises(ValueError, match="one logit for each pixel"):
        BernoulliVAE(encoder, nets.mlp_decoder(4, [8], shape), 3, shape)
    with pytest.raises(ValueError, match="one logit for each pixel"):
        BernoulliVAE(encoder, nets.mlp_decoder(3, [8], (1, 8, 8)), 3, shape)
    with pytest.raises(ValueError, match="mu and logvar"):
        BernoulliVAE(encoder, decoder, 3, (1, 8, 8))
    with pytest.raises(ValueError, match="flow maps 4 numbers"):
        BernoulliVAE(encoder, decoder, 3, shape, Flow(4, 1))
    BernoulliVAE(encoder, decoder, 3, shape)


# --- the ELBO and the importance-sampled bound -----------------------------------------------------


def test_elbo_terms_have_the_right_signs_and_scale():
    vae, x = tiny_vae(), binary_images(6)
    q = vae.posterior(x)
    mu, sigma = q.mean, q.stddev
    reconstruction, kl = (term.view(2000, 6) for term in likelihood.elbo_terms(vae, x.repeat(2000, 1, 1, 1)))
    torch.testing.assert_close(kl[7], 0.5 * (mu**2 + sigma**2 - 1 - 2 * sigma.log()).sum(1))
    z = mu + sigma * torch.randn(2000, *mu.shape)
    reference = Independent(Bernoulli(logits=vae.decoder(z.flatten(0, 1)).view(2000, 6, 1, 4, 4)), 3).log_prob(x)
    error = (reconstruction.var(0) / 2000 + reference.var(0) / 2000).sqrt()
    assert ((reconstruction.mean(0) - reference.mean(0)).abs() < 4.5 * error).all()
    losses = likelihood.elbo_loss(vae, x)
    assert losses["loss"].item() == pytest.approx(-(losses["log_likelihood"] - losses["kl"]).item(), rel=1e-6)
    torch.manual_seed(1)
    weighted = likelihood.elbo_loss(vae, x, kl_weight=0.0)
    assert weighted["loss"].item() == pytest.approx(-weighted["log_likelihood"].item(), rel=1e-6)


def test_elbo_is_below_the_likelihood_by_the_kl_to_the_posterior():
    """log p(x) = ELBO + KL(q ‖ p(z | x)), all three in closed form or by quadrature."""
    model = linear_model()
    _, x = model.sample(5)
    truth = model.marginal().log_prob(x)
    estimate = importance_sampling(model, x, 20_000, posterior=model.mean_field)
    q, posterior = model.mean_field(x), model.posterior(x)
    diagonal = MultivariateNormal(q.mean, covariance_matrix=torch.diag_embed(q.variance))
    gap = kl_divergence(diagonal, posterior)
    for stretch in (0.9, 1.1):  # no other variances come closer
        other = MultivariateNormal(q.mean, covariance_matrix=torch.diag_embed(stretch * q.variance))
        assert (kl_divergence(other, posterior) > gap).all()
    torch.testing.assert_close(gap, model.mean_field_gap().expand(5))
    # Log-weights of a Gaussian pair have a standard deviation of a few nats: 20,000 of them give 0.05.
    assert ((estimate.elbo + gap - truth).abs() < 0.15).all()


@pytest.mark.parametrize("K", [1, 7, 100])
def test_with_the_exact_posterior_every_log_weight_is_the_likelihood(K):
    model = linear_model()
    _, x = model.sample(9)
    truth = model.marginal().log_prob(x)
    log_w = likelihood.log_weights(model, x, K)
    assert (log_w - truth).abs().max() < 1e-5
    estimate = importance_sampling(model, x, K)
    assert (estimate.log_p - truth).abs().max() < 1e-5
    assert (estimate.ess - K).abs().max() < 1e-3 * K
    assert estimate.noise.max() < 1e-4


def test_importance_sampling_finds_the_likelihood_that_quadrature_finds():
    vae, x = tiny_vae(latent_dim=1), binary_images(20)
    truth = marginal_by_quadrature(vae, x)
    estimate = importance_sampling(vae, x, 20_000)
    assert ((estimate.log_p - truth).abs() < 5 * estimate.noise + 1e-4).all()
    assert estimate.noise.max() < 0.1


def test_noise_is_the_spread_of_repeated_estimates():
    vae, x = tiny_vae(latent_dim=2), binary_images(8)
    runs = [importance_sampling(vae, x, 200) for _ in range(150)]
    spread = torch.stack([run.log_p for run in runs]).std(0)
    claimed = torch.stack([run.noise for run in runs]).mean(0)
    # The spread of 150 runs is known to 1/√300 = 6 %, and the delta method is first-order.
    assert ((claimed / spread - 1).abs() < 0.3).all()


def test_importance_curve_is_the_definition_on_the_same_samples():
    """Streaming in chunks, groups of k nested in groups of the next: against one matrix of all log-weights."""
    vae, x = tiny_vae(), binary_images(5)
    for rows in (1, 10, 5 * 6, 5 * 60, 10_000):
        torch.manual_seed(4)
        estimate = importance_sampling(vae, x, 120, counts=(2, 6, 60), rows=rows)
        chunk = max(c for c in (1, 2, 6, 12, 60, 120) if c <= max(1, rows // 5))
        torch.manual_seed(4)
        with torch.no_grad():
            log_w = torch.cat([likelihood.log_weights(vae, x, chunk) for _ in range(120 // chunk)]).double()
        assert estimate.counts == (1, 2, 6, 60, 120)
        for row, k in enumerate(estimate.counts):
            groups = log_w.unflatten(0, (120 // k, k))
            torch.testing.assert_close(estimate.curve[row], groups.exp().mean(1).log().mean(0))
        w = log_w.exp()
        torch.testing.assert_close(estimate.ess, w.sum(0) ** 2 / (w**2).sum(0))


def test_importance_estimate_is_never_below_the_elbo_of_its_samples():
    vae, x = tiny_vae(), binary_images(50)
    estimate = importance_sampling(vae, x, 100, counts=(5, 10))
    assert (estimate.curve.diff(dim=0) >= -1e-9).all()
    assert (estimate.log_p >= estimate.elbo).all()
    assert (estimate.log_p - estimate.elbo).mean() > 0.01  # and not the ELBO itself


def test_images_far_too_unlikely_for_floating_point_are_no_problem():
    """Weights around e^−2000: exp() of any of them is 0, in double precision too."""
    shape = (1, 32, 32)
    vae = tiny_vae(2, shape)
    estimate = importance_sampling(vae, torch.ones(2, *shape), 50)
    assert (estimate.log_p < -100).all()
    scaled = LinearGaussian(torch.zeros(500, dtype=torch.float64), torch.randn(500, 2, dtype=torch.float64), 0.01)
    x = torch.ones(1, 500, dtype=torch.float64)
    assert scaled.marginal().log_prob(x).item() < -1e4
    assert importance_sampling(scaled, x, 3).log_p.item() == pytest.approx(
        scaled.marginal().log_prob(x).item(), rel=1e-6
    )


def test_batches_of_images_are_estimated_each_on_its_own():
    vae, x = tiny_vae(), binary_images(7)
    apart = importance_sampling(vae, x, 400, batch=2)
    together = importance_sampling(vae, x, 400, batch=7)
    error = (apart.noise**2 + together.noise**2).sqrt()
    assert ((apart.log_p - together.log_p).abs() < 5 * error).all()


def test_memory_does_not_grow_with_samples():
    vae, x = tiny_vae(), binary_images(4)
    decoded = []
    vae.decoder.register_forward_hook(lambda module, args, out: decoded.append(len(out)))
    importance_sampling(vae, x, 10_000, rows=200)
    assert max(decoded) <= 200
    assert sum(decoded) == 4 * 10_000


@pytest.mark.parametrize("K", [0, -3])
def test_too_few_samples_are_refused(K):
    vae, x = tiny_vae(), binary_images(2)
    for use in (likelihood.log_weights, likelihood.iwae_loss, likelihood.dreg_loss, importance_sampling):
        with pytest.raises(ValueError, match=f"K={K}"):
            use(vae, x, K)


def test_counts_that_do_not_nest_are_refused():
    with pytest.raises(ValueError, match="divide"):
        importance_sampling(tiny_vae(), binary_images(2), 100, counts=(3,))


def test_evaluation_leaves_dropout_and_training_mode_alone():
    shape = (1, 4, 4)
    decoder = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.9), nn.Unflatten(1, shape))
    vae = BernoulliVAE(nets.mlp_encoder(shape, [8], 6), decoder, 3, shape).train()
    x, before = binary_images(4), {k: v.clone() for k, v in vae.state_dict().items()}
    likelihood.elbo(vae, x)
    importance_sampling(vae, x, 10)
    likelihood.kl_per_dimension(vae, x)
    assert vae.training
    assert decoder[1].training
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())


# --- IWAE and DReG ---------------------------------------------------------------------------------


def test_iwae_loss_is_the_bound_and_its_gradient_weighs_samples_by_softmax():
    vae, x = tiny_vae(), binary_images(6)
    torch.manual_seed(2)
    losses = likelihood.iwae_loss(vae, x, 5)
    losses["loss"].backward()
    gradient = vae.decoder[0].weight.grad.clone()
    vae.zero_grad()
    torch.manual_seed(2)
    log_w = likelihood.log_weights(vae, x, 5)
    assert losses["loss"].item() == pytest.approx(-log_w.exp().mean(0).log().mean().item(), rel=1e-5)
    assert losses["elbo"].item() == pytest.approx(log_w.mean().item(), rel=1e-5)
    (-(log_w.softmax(0).detach() * log_w).sum(0).mean()).backward()
    torch.testing.assert_close(gradient, vae.decoder[0].weight.grad)


def gradients(loss_fn, vae, x, K: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of the encoder and of the decoder, each as one vector."""
    vae.zero_grad()
    loss_fn(vae, x, K)["loss"].backward()
    return tuple(torch.cat([p.grad.flatten() for p in part.parameters()]) for part in (vae.encoder, vae.decoder))


@pytest.mark.parametrize("K", [1, 4])
def test_dreg_has_the_gradient_of_iwae_on_average_and_less_noise(K):
    shape = (1, 2, 2)
    vae = BernoulliVAE(nets.mlp_encoder(shape, [], 2), nets.mlp_decoder(1, [], shape), 1, shape)
    x, draws = binary_images(1, shape).expand(50, *shape), 150  # one image 50 times: its loss averages 50 draws
    losses = (likelihood.iwae_loss, likelihood.dreg_loss)
    samples = [[gradients(loss_fn, vae, x, K) for _ in range(draws)] for loss_fn in losses]
    for part in (0, 1):
        iwae, dreg = (torch.stack([pair[part] for pair in pairs]) for pairs in samples)
        error = ((iwae.var(0) + dreg.var(0)) / draws).sqrt()
        assert ((iwae.mean(0) - dreg.mean(0)).abs() <= 4.5 * error + 1e-7).all()
        if part == 0:
            assert dreg.var(0).sum() < iwae.var(0).sum()


def test_dreg_of_the_decoder_and_the_value_are_those_of_iwae_for_the_same_samples():
    vae, x = tiny_vae(), binary_images(6)
    results = []
    for loss_fn in (likelihood.iwae_loss, likelihood.dreg_loss):
        torch.manual_seed(5)
        value = loss_fn(vae, x, 8)["loss"].item()
        torch.manual_seed(5)
        results.append((value, gradients(loss_fn, vae, x, 8)[1]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1])


def test_dreg_of_one_sample_vanishes_at_the_exact_posterior():
    """Sticking the landing: with q = p(z | x) log w does not depend on z, so its path gradient is 0."""

    class Exact(LinearGaussian):
        def posterior(self, x):
            q = super().posterior(x)
            return Independent(
                Normal(q.mean + shift, (self.precision.diagonal().rsqrt() * stretch.exp()).expand_as(q.mean)), 1
            )

    shift, stretch = (torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.linalg.qr(torch.randn(6, 2, dtype=torch.float64)).Q  # orthogonal: the posterior is diagonal
    model = Exact(torch.zeros(6, dtype=torch.float64), weight, 0.5)
    _, x = model.sample(4)
    likelihood.dreg_loss(model, x, 1)["loss"].backward()
    assert shift.grad.abs().max() < 1e-9
    assert stretch.grad.abs().max() < 1e-9
    shift.grad = stretch.grad = None
    likelihood.iwae_loss(model, x, 1)["loss"].backward()
    assert stretch.grad.abs().max() > 1e-3


def test_the_kl_of_each_dimension_is_torchs_averaged_over_images_and_sums_to_the_whole():
    vae, x = tiny_vae(), binary_images(30)
    found = likelihood.kl_per_dimension(vae, x, batch=7)
    q = vae.posterior(x).base_dist
    expected = kl_divergence(Normal(q.mean, q.stddev), Normal(torch.zeros(3), torch.ones(3))).mean(0)
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(found.sum(), likelihood.elbo(vae, x)[1].mean())


def test_a_collapsed_dimension_has_a_kl_of_nothing():
    vae, x = tiny_vae(), binary_images(30)
    with torch.no_grad():  # mean and log-variance of the second latent are 0, whatever the image
        for row in (1, 4):
            vae.encoder[-1].weight[row] = vae.encoder[-1].bias[row] = 0
    found = likelihood.kl_per_dimension(vae, x)
    assert found[1].abs() < 1e-6 and (found[[0, 2]] > 0.01).all()


def test_the_encoders_second_half_is_the_log_of_the_variance():
    vae, x = tiny_vae(), binary_images(4)
    with torch.no_grad():
        vae.encoder[-1].weight.zero_()
        vae.encoder[-1].bias.copy_(torch.tensor([1.0, 2.0, 3.0, math.log(4), 0.0, math.log(0.25)]))
    q = vae.posterior(x)
    torch.testing.assert_close(q.mean, torch.tensor([1.0, 2.0, 3.0]).expand(4, 3))
    torch.testing.assert_close(q.stddev, torch.tensor([2.0, 1.0, 0.5]).expand(4, 3))


def test_the_kl_of_each_dimension_is_judged_without_dropout():
    encoder = nn.Sequential(nn.Dropout(0.5), nets.mlp_encoder((1, 4, 4), [8], 6))
    vae, x = BernoulliVAE(encoder, nets.mlp_decoder(3, [8], (1, 4, 4)), 3, (1, 4, 4)).train(), binary_images(20)
    torch.testing.assert_close(*(likelihood.kl_per_dimension(vae, x) for _ in range(2)))


def test_samples_as_they_come_give_the_estimate_of_the_first_so_many_and_the_largest_share():
    log_w = 3 * torch.randn(40, 5, dtype=torch.float64) - 900
    estimate, share = likelihood.as_they_come(log_w, [1, 3, 40])
    for row, k in enumerate([1, 3, 40]):
        torch.testing.assert_close(estimate[row], likelihood.log_mean_exp(log_w[:k]))
        torch.testing.assert_close(share[row], torch.softmax(log_w[:k], 0).amax(0))
    torch.testing.assert_close(share[0], torch.ones(5, dtype=torch.float64))


# --- training on binary images ---------------------------------------------------------------------


def train_few(passes=2, **changes):
    vae, images = tiny_vae(), (255 * torch.rand(40, 1, 4, 4)).byte()
    seen = []

    def loss_fn(model, x):
        seen.append(x)
        return likelihood.elbo_loss(model, x)

    watched = {"some": binary_images(10), "others": binary_images(6)}
    given = {"images": images, "passes": passes, "batch_size": 16, "watched": watched, "probes": 3}
    history, curve = likelihood.train_binary(vae, loss_fn, adam_one_cycle_at, **{**given, **changes})
    return vae, images, seen, watched, history, curve


def adam_one_cycle_at(model, loss_fn, steps):
    return optim.adam_one_cycle(model, loss_fn, steps, 1e-3)


def test_training_sees_binary_images_drawn_anew_with_the_grey_level_as_probability():
    _, images, seen, *_ = train_few(passes=200, batch_size=40)
    assert all(((x == 0) | (x == 1)).all() for x in seen)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))
    mean = torch.stack([x.mean() for x in seen]).mean()
    # 200 · 640 pixels, each with a variance of at most 1/4
    assert (mean - images.float().mean() / 255).abs() < 4.5 * 0.5 / math.sqrt(200 * 640)


def test_what_is_watched_in_training_are_both_terms_of_the_elbo_of_each_set():
    vae, _, _, watched, history, curve = train_few()
    assert len(history) == 6  # 40 images in batches of 16: three steps a pass
    assert curve.shape == (3, 5)
    torch.testing.assert_close(curve[:, 0], torch.tensor([2, 4, 6], dtype=torch.float64) / 3)
    for column, x in zip((1, 3), watched.values(), strict=True):
        kl = likelihood.elbo(vae, x)[1].mean()  # closed form, and so the same in every draw
        assert curve[-1, column + 1].item() == pytest.approx(kl.item(), rel=1e-5)
        draws = torch.stack([likelihood.elbo(vae, x)[0].mean() for _ in range(50)])
        assert abs(curve[-1, column] - draws.mean()) < 5 * draws.std()


def test_a_batch_may_be_asked_for_that_is_larger_than_the_set():
    *_, history, _ = train_few(batch_size=1000)
    assert len(history) == 2


# --- a prior that learns ---------------------------------------------------------------------------


def restless_flow(dim: int = 5, layers: int = 3) -> Flow:
    """A flow that is not the identity."""
    flow = Flow(dim, layers, hidden=8)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return flow


def test_a_flow_is_inverted_exactly_and_its_determinant_is_that_of_its_jacobian():
    flow = restless_flow().double()
    z = torch.randn(7, 5, dtype=torch.float64)
    u, log_det = flow(z)
    torch.testing.assert_close(flow.inverse(u), z)
    for i in range(7):
        jacobian = torch.autograd.functional.jacobian(lambda z: flow(z)[0], z[i])
        assert log_det[i].item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-9)


def test_a_new_flow_leaves_the_prior_standard_normal():
    flow = Flow(4, 2)
    z = torch.randn(6, 4)
    prior = BernoulliVAE(
        nets.mlp_encoder((1, 4, 4), [8], 8), nets.mlp_decoder(4, [8], (1, 4, 4)), 4, (1, 4, 4), flow
    ).prior
    torch.testing.assert_close(prior.log_prob(z), Independent(Normal(torch.zeros(4), torch.ones(4)), 1).log_prob(z))
    with pytest.raises(ValueError, match="at least"):
        Flow(1, 2)


def test_a_flow_prior_is_normalised_and_sampled_as_its_density_says():
    prior = likelihood.FlowPrior(restless_flow(2, 4), Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
    axis = torch.linspace(-12, 12, 1201)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = prior.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
    assert density.sum().item() == pytest.approx(1, abs=0.01)
    z = prior.sample((40_000,))
    torch.testing.assert_close(z.mean(0), density @ grid, rtol=0, atol=0.05)
    torch.testing.assert_close((z**2).mean(0), density @ grid**2, rtol=0.05, atol=0.05)


def test_estimates_with_a_flow_prior_agree_with_each_other():
    shape = (1, 4, 4)
    encoder, decoder = nets.mlp_encoder(shape, [8], 4), nets.mlp_decoder(2, [8], shape)
    vae, x = BernoulliVAE(encoder, decoder, 2, shape, restless_flow(2, 2)), binary_images(40, shape)
    sampled = importance_sampling(vae, x, 5000)
    reconstruction, kl = likelihood.elbo(vae, x.repeat(100, 1, 1, 1))
    one_by_one = (reconstruction - kl).view(100, 40)
    assert ((one_by_one.mean(0) - sampled.elbo).abs() < 4.5 * one_by_one.std(0) / 10 + 0.1).all()
