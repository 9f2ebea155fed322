import math

import pytest
import scipy.stats
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from lib import nets, vae


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_gaussian_kl_is_the_librarys_and_a_monte_carlo_mean():
    mu, logvar = torch.randn(5, 3), torch.randn(5, 3)
    q, p = Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0)
    kl = vae.gaussian_kl(mu, logvar)
    assert torch.allclose(kl, kl_divergence(q, p).sum(1), atol=1e-5)
    z = q.sample((200_000,))
    draws = (q.log_prob(z) - p.log_prob(z)).sum(-1)
    # five standard errors of the mean: a false alarm in about one of a million runs
    assert ((draws.mean(0) - kl).abs() < 5 * draws.std(0) / math.sqrt(len(draws))).all()


def test_the_parts_of_the_kl_are_those_of_a_moved_and_of_a_stretched_gaussian():
    mu, logvar = torch.randn(5, 3), torch.randn(5, 3)
    sigma, prior = (0.5 * logvar).exp(), Normal(0.0, 1.0)
    mean_part, variance_part = vae.gaussian_kl_parts(mu, logvar)
    moved, stretched = Normal(mu, 1.0), Normal(torch.zeros(5, 3), sigma)
    torch.testing.assert_close(mean_part, kl_divergence(moved, prior).sum(1))
    torch.testing.assert_close(variance_part, kl_divergence(stretched, prior).sum(1))
    torch.testing.assert_close(mean_part + variance_part, vae.gaussian_kl(mu, logvar))


def test_each_part_of_the_kl_pulls_at_its_own_parameter_alone():
    mu, logvar = (torch.randn(5, 3, requires_grad=True) for _ in range(2))
    mean_part, variance_part = vae.gaussian_kl_parts(mu, logvar)
    of_mean = torch.autograd.grad(mean_part.sum(), (mu, logvar), allow_unused=True)
    of_variance = torch.autograd.grad(variance_part.sum(), (mu, logvar), allow_unused=True)
    torch.testing.assert_close(of_mean[0], mu.detach())
    assert of_mean[1] is None and of_variance[0] is None
    torch.testing.assert_close(of_variance[1], 0.5 * (logvar.detach().exp() - 1))


def test_gaussian_kl_is_zero_at_the_prior_and_only_there():
    assert vae.gaussian_kl(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0
    assert vae.gaussian_kl(torch.full((1, 4), 0.1), torch.zeros(1, 4)).item() > 0
    assert vae.gaussian_kl(torch.zeros(1, 4), torch.full((1, 4), -0.1)).item() > 0


def test_log_likelihood_is_the_normal_density_summed_over_pixels():
    x, x_hat, log_sigma = torch.rand(4, 2, 3, 3), torch.rand(4, 2, 3, 3), torch.tensor(-0.7)
    expected = Normal(x_hat, log_sigma.exp()).log_prob(x).flatten(1).sum(1)
    assert torch.allclose(vae.gaussian_log_likelihood(x, x_hat, log_sigma), expected, atol=1e-4)


def test_the_best_sigma_is_the_root_of_the_mean_squared_error():
    x, x_hat = torch.rand(64, 1, 4, 4), torch.rand(64, 1, 4, 4)
    log_sigma = (0.5 * ((x - x_hat) ** 2).mean().log()).requires_grad_()
    vae.gaussian_log_likelihood(x, x_hat, log_sigma).mean().backward()
    assert log_sigma.grad.item() == pytest.approx(0, abs=1e-4)


def test_reparameterised_draws_have_the_moments_and_pass_gradients_on():
    mu, logvar = torch.tensor([[1.0, -2.0]], requires_grad=True), torch.tensor([[0.5, -1.0]], requires_grad=True)
    z = vae.reparameterise(mu.expand(100_000, 2), logvar.expand(100_000, 2))
    sigma = (0.5 * logvar).exp()
    assert torch.allclose(z.mean(0), mu[0], atol=5 * sigma.max().item() / math.sqrt(1e5))
    assert torch.allclose(z.std(0), sigma[0], rtol=0.02)
    # d/d mu E[z²] = 2 mu and d/d logvar E[z²] = sigma²
    (z**2).mean(0).sum().backward()
    assert torch.allclose(mu.grad, 2 * mu, rtol=0.05)
    assert torch.allclose(logvar.grad, sigma**2, rtol=0.05)


class Fixed(nn.Module):
    """An encoder that proposes the same q for every image."""

    def __init__(self, mu, logvar):
        super().__init__()
        self.answer = torch.tensor([[mu, logvar]])

    def forward(self, x):
        return self.answer.expand(len(x), 2)


def test_the_elbo_falls_short_of_log_p_by_the_divergence_from_the_true_posterior():
    """log p(x) − ELBO = KL(q ‖ p(z | x)), with one latent dimension integrated on a grid."""
    model = vae.VAE(Fixed(0.4, -1.2), nets.mlp_decoder(1, [8], (1, 2, 2)), sigma=0.2)
    x = torch.rand(1, 1, 2, 2)
    with torch.no_grad():
        grid = torch.linspace(-8, 8, 20_001)[:, None]
        cell = 16 / 20_000
        log_joint = vae.gaussian_log_likelihood(x, model.decode(grid), model.log_sigma) + Normal(0, 1).log_prob(
            grid[:, 0]
        )
        log_p = torch.logsumexp(log_joint, 0) + math.log(cell)
        q = Normal(0.4, math.exp(-0.6))
        log_q = q.log_prob(grid[:, 0])
        gap = (log_q.exp() * (log_q - (log_joint - log_p))).sum() * cell
        log_likelihood, kl = vae.elbo_terms(model, x.expand(50_000, 1, 2, 2))
    elbo = log_likelihood - kl
    error = elbo.std() / math.sqrt(len(elbo))
    assert gap > 0.1, "the test would not see a missing term"
    assert (log_p - gap - elbo.mean()).abs() < 5 * error + 1e-3


def make_vae(sigma=0.3):
    return vae.VAE(nets.mlp_encoder((1, 4, 4), [8], 6), nets.mlp_decoder(3, [8], (1, 4, 4)), sigma)


def test_the_loss_is_minus_the_mean_elbo_and_weights_leave_terms_out():
    model, x = make_vae(), torch.rand(10, 1, 4, 4)

    def loss(x=x, **weights):
        torch.manual_seed(1)
        return vae.vae_loss(model, x, **weights)

    both = loss()
    assert both["loss"].item() == pytest.approx((both["kl"] - both["log_likelihood"]).item(), rel=1e-5)
    without_kl = loss(mean_weight=0, variance_weight=0)
    assert torch.allclose(without_kl["loss"], -both["log_likelihood"])
    assert torch.allclose(without_kl["kl"], both["kl"]), "reported, whatever the weights"
    assert torch.allclose(loss(likelihood_weight=0)["loss"], both["kl"])


@pytest.mark.parametrize("part", ["mean", "variance"])
def test_one_part_of_the_kl_can_be_trained_alone(part):
    model, x = make_vae(), torch.rand(10, 1, 4, 4)
    weights = {f"{name}_weight": float(name == part) for name in ("likelihood", "mean", "variance")}
    losses = vae.vae_loss(model, x, **weights)
    parts = dict(zip(("mean", "variance"), vae.gaussian_kl_parts(*model.encode(x)), strict=True))
    torch.testing.assert_close(losses["loss"], parts[part].mean())
    torch.testing.assert_close(losses["kl"], (parts["mean"] + parts["variance"]).mean())
    losses["loss"].backward()
    learns = model.encoder[-1].weight.grad.abs().sum(1) > 0
    assert learns.tolist() == [part == "mean"] * 3 + [part == "variance"] * 3


def test_the_loss_does_not_grow_with_the_batch():
    model, x = make_vae(), torch.rand(1, 1, 4, 4)
    model.encoder[-1].weight.data[3:] = 0
    model.encoder[-1].bias.data[3:] = -30  # q without noise: both losses are exact
    one, many = (vae.vae_loss(model, x.expand(n, 1, 4, 4))["loss"] for n in (1, 7))
    assert one.item() == pytest.approx(many.item(), rel=1e-4)
    ae = vae.Autoencoder(nets.mlp_encoder((1, 4, 4), [8], 3), nets.mlp_decoder(3, [8], (1, 4, 4)))
    error = vae.autoencoder_loss(ae, x.expand(7, 1, 4, 4))["loss"]
    assert error.item() == pytest.approx(((x - ae(x)) ** 2).sum().item(), rel=1e-5)


def test_a_free_sigma_goes_to_its_best_value_in_training_and_only_there():
    free, fixed = make_vae(None), make_vae(0.5)
    x = torch.rand(500, 1, 4, 4)
    for _ in range(150):  # nothing else learns, so the error stands still
        vae.vae_loss(free, x)
        vae.vae_loss(fixed, x)
    with torch.no_grad():
        error = ((x - free.decode(vae.reparameterise(*free.encode(x)))) ** 2).mean()
    assert free.log_sigma.exp().item() == pytest.approx(error.sqrt().item(), rel=0.02)
    assert fixed.log_sigma.exp().item() == pytest.approx(0.5)
    before = free.log_sigma.clone()
    vae.vae_loss(free.eval(), torch.zeros_like(x))
    assert free.log_sigma == before


def test_a_step_moves_a_free_sigma_a_twentieth_of_the_way_in_its_logarithm():
    model, x = make_vae(None).train(), torch.rand(6, 1, 4, 4)
    x_hat = torch.rand(6, 1, 4, 4)
    model.calibrate(x, x_hat)
    best = ((x - x_hat) ** 2).mean().sqrt().log()
    torch.testing.assert_close(model.log_sigma, 0.95 * torch.tensor(0.3).log() + 0.05 * best)


def test_terms_of_the_elbo_move_nothing():
    model, x = make_vae(None).train(), torch.rand(6, 1, 4, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    vae.elbo_terms(model, x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_both_terms_reach_encoder_and_decoder():
    model, x = make_vae(), torch.rand(10, 1, 4, 4)
    for weights, decoder_learns in (
        ({"mean_weight": 0, "variance_weight": 0}, True),
        ({"likelihood_weight": 0}, False),
    ):
        model.zero_grad()
        vae.vae_loss(model, x, **weights)["loss"].backward()
        assert model.encoder[-1].weight.grad[:3].abs().sum() > 0, "no gradient to mu"
        assert model.encoder[-1].weight.grad[3:].abs().sum() > 0, "no gradient to logvar"
        assert (model.decoder[0].weight.grad.abs().sum() > 0) == decoder_learns


def test_a_vaes_reconstruction_is_that_of_the_posteriors_mean():
    model, x = make_vae(), torch.rand(5, 1, 4, 4)
    mu, logvar = model.encode(x)
    assert torch.equal(model(x), model.decode(mu)), "without a draw"
    torch.testing.assert_close(torch.cat([mu, logvar], 1), model.encoder(x))
    torch.manual_seed(3)
    x_hat, *q = model.reconstruct(x)
    torch.manual_seed(3)
    assert torch.equal(x_hat, model.decode(vae.reparameterise(mu, logvar)))
    assert torch.equal(q[0], mu) and torch.equal(q[1], logvar)


def test_codes_and_pixels_are_float32_whatever_the_networks_run_in():
    x = torch.rand(5, 1, 4, 4)
    autoencoder = vae.Autoencoder(nets.mlp_encoder((1, 4, 4), [8], 3), nets.mlp_decoder(3, [8], (1, 4, 4)))
    with torch.autocast("cpu", torch.bfloat16):
        found = [autoencoder.encode(x), autoencoder(x), *make_vae().encode(x), make_vae()(x)]
    assert {part.dtype for part in found} == {torch.float32}


def test_draws_are_normal_and_of_each_image_its_own():
    z = vae.reparameterise(torch.zeros(20_000, 2), torch.zeros(20_000, 2))
    assert scipy.stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-4
    assert abs(torch.corrcoef(z.T)[0, 1]) < 5 / math.sqrt(20_000)


def test_a_free_sigma_begins_at_three_tenths_and_is_no_weight():
    free, fixed = make_vae(None), make_vae(0.7)
    assert free.log_sigma.exp().item() == pytest.approx(0.3) and fixed.log_sigma.exp().item() == pytest.approx(0.7)
    assert "log_sigma" in free.state_dict() and "log_sigma" not in dict(free.named_parameters())
