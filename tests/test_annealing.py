import math

import pytest
import torch
from tiny import binary_images, linear_model, tiny_vae
from torch import nn
from torch.distributions import Independent, Normal

from lib import annealing, likelihood
from lib.likelihood import importance_sampling
from lib.linear_gaussian import LinearGaussian


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def turned_model(dim: int = 20, pixels: int = 40) -> LinearGaussian:
    """A posterior whose axes are turned against those of the diagonal q that starts the path."""
    weight = torch.linalg.qr(torch.randn(pixels, dim, dtype=torch.float64)).Q * torch.linspace(2, 1, dim)
    turn = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64)).Q
    model = LinearGaussian(torch.zeros(pixels, dtype=torch.float64), weight @ turn, 1.0)
    model.posterior = model.mean_field
    return model


# --- bounds from both sides ------------------------------------------------------------------------


def test_the_ten_lines_on_the_page_give_what_the_estimate_gives():
    """The same chains, moved by the same moves, evaluated anew at every point."""
    vae, x = tiny_vae(), binary_images(5)
    path = annealing.tune(vae, x, temperatures=6, leapfrog=3)
    with torch.no_grad():
        q = vae.posterior(x)
    steps = iter([*path.step_sizes, None])

    def move(z, beta):
        size = next(steps)
        if size is None:  # behind the last weight a move changes nothing, and the estimate leaves it out
            return z
        here = annealing._evaluate(vae, x, q, z)
        args = beta, size[:, None] * q.stddev, path.leapfrog
        there, probability = annealing._hamiltonian_move(vae, x, q, here, *args)
        accepted = torch.rand_like(probability) < probability
        return torch.where(accepted.unsqueeze(-1), there.z, z)

    torch.manual_seed(1)
    expected = annealing.lower(vae, x, path, chains=7)
    torch.manual_seed(1)
    with torch.no_grad():
        found = annealing.read_me_first(vae, x, path.betas.tolist(), move, chains=7)
    torch.testing.assert_close(found, expected.to(found), rtol=1e-5, atol=1e-4)


def test_more_temperatures_give_tighter_bounds_from_both_sides():
    """Trajectories of one length near π standard deviations fail here: they take z to its mirror image."""
    model = turned_model()
    z, x = model.sample(300)
    truth = model.marginal().log_prob(x)
    errors = []
    for temperatures in (3, 10, 40):
        path = annealing.tune(model, x, temperatures)
        below = (annealing.lower(model, x, path, 4) - truth).mean()
        above = (annealing.upper(model, x, z, path, 4) - truth).mean()
        errors.append(max(abs(below), abs(above)))
    # The bounds' own noise over 300 images is 0.01 at most.
    assert errors[1] < 0.05
    assert errors[2] < 0.03
    assert errors[0] > errors[1] + 0.01


def test_one_interval_from_the_posterior_is_importance_sampling():
    vae, x = tiny_vae(), binary_images(5)
    path = annealing.tune(vae, x, temperatures=1)
    torch.manual_seed(6)
    annealed = annealing.lower(vae, x, path, chains=30)
    torch.manual_seed(6)
    with torch.no_grad():
        weights = likelihood.log_weights(vae, x, 30)
    torch.testing.assert_close(annealed, likelihood.log_mean_exp(weights))


@pytest.mark.parametrize(("from_prior", "width"), [(True, 3.0), (False, 0.5)])
def test_annealing_brackets_the_truth_within_two_standard_errors(from_prior, width):
    model = linear_model()
    model.posterior = model.mean_field  # start from the wrong posterior
    z, x = model.sample(100)
    truth = model.marginal().log_prob(x)
    path = annealing.tune(model, x, temperatures=40, leapfrog=3, from_prior=from_prior)
    below = annealing.lower(model, x, path, chains=4) - truth
    above = annealing.upper(model, x, z, path, chains=4) - truth
    error = [gap.std().item() / math.sqrt(100) for gap in (below, above)]
    assert below.mean() <= 2 * error[0]
    assert above.mean() >= -2 * error[1]
    assert above.mean() - below.mean() < width
    assert 0.3 < path.acceptance.mean() < 0.95


def test_annealed_weights_average_to_the_likelihood_whatever_the_step_size():
    """E[w] = p(x) exactly and E[1/w] = 1/p(x) in reverse, well tuned or not: a wrong acceptance rule breaks it."""
    model = LinearGaussian(torch.zeros(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64), 0.8)
    _, x = model.sample(1)
    truth = model.marginal().log_prob(x).item()
    chains = 20_000
    for size in (0.2, 1.2):
        path = annealing.tune(model, x, temperatures=4, leapfrog=2, from_prior=True)
        path.step_sizes.fill_(size)
        # Each mean of 20,000 bounded weights is known to about 1 %.
        assert annealing.lower(model, x, path, chains).item() == pytest.approx(truth, abs=0.05)
        exact = model.posterior(x).sample((chains,))
        many = annealing.upper(model, x.expand(chains, -1), exact[:, 0], _stretched(path, chains), 1)
        assert -likelihood.log_mean_exp(-many).item() == pytest.approx(truth, abs=0.05)


def _stretched(path: annealing.Path, count: int) -> annealing.Path:
    return annealing.Path(
        path.betas, path.leapfrog, path.from_prior, path.step_sizes.expand(-1, count), path.acceptance
    )


def test_one_interval_from_the_prior_is_its_own_weight_in_both_directions():
    """T = 1: log p(x, z) − log p(z) = log p(x | z), and the reverse chain begins and ends at the z it is given."""
    vae, x = tiny_vae(), binary_images(5)
    path = annealing.tune(vae, x, temperatures=1, from_prior=True)
    z = torch.randn(5, 3)
    with torch.no_grad():
        expected = vae.log_likelihood(x, z[None])[0]
    torch.testing.assert_close(annealing.upper(vae, x, z, path, chains=2), expected)


def test_step_sizes_suit_each_image_on_its_own():
    class TwoWidths(nn.Module):
        """p(z | x) about as wide as x: one image wants steps a hundred times smaller than the other."""

        prior = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)

        def posterior(self, x):
            return self.prior.expand((len(x),))

        def log_likelihood(self, x, z):
            return -0.5 * (z / x).square().sum(-1)

    path = annealing.tune(TwoWidths(), torch.tensor([[0.01], [1.0]]), temperatures=40, chains=20)
    narrow, wide = path.step_sizes[-1].tolist()
    assert narrow < 0.2 * wide


def test_annealing_is_tighter_than_importance_sampling_from_a_poor_start():
    model = linear_model(dim=8, pixels=40)
    model.posterior = lambda x: model.prior.expand((len(x),))
    _, x = model.sample(20)
    truth = model.marginal().log_prob(x)
    path = annealing.tune(model, x, temperatures=50, leapfrog=3)
    annealed = annealing.lower(model, x, path, chains=2)
    sampled = importance_sampling(model, x, 2 * 50 * 3).log_p  # as many evaluations
    assert (truth - annealed).mean() < 0.5 * (truth - sampled).mean()


def test_hamiltonian_moves_leave_their_target_alone():
    """Chains that begin at exact posterior samples must still be distributed like them after many moves."""
    model = LinearGaussian(torch.zeros(3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64), 0.5)
    _, x = model.sample(1)
    posterior = model.posterior(x)
    here = annealing.Path(torch.ones(12), 3, False, torch.full((10, 1), 0.9), torch.zeros(0))
    torch.manual_seed(3)
    moved = annealing.anneal(model, x, here, 4000)
    torch.manual_seed(3)
    z = posterior.sample((4000,))  # where they began
    assert moved.log_w.abs().max() < 1e-9
    assert 0.2 < moved.acceptance.mean() < 0.999
    # Means of 4,000 samples within 4.5 standard errors, variances (known to 2 %) within 10 %.
    sigma = posterior.stddev[0]
    assert ((moved.z[:, 0].mean(0) - posterior.mean[0]).abs() < 4.5 * sigma / math.sqrt(4000)).all()
    torch.testing.assert_close(moved.z[:, 0].T.cov(), posterior.covariance_matrix[0], rtol=0.1, atol=0.01)
    assert (moved.z - z).abs().mean() > 0.3 * sigma.mean()  # and they did move


@pytest.mark.parametrize("argument", ["temperatures", "leapfrog", "chains"])
def test_paths_of_nothing_are_refused(argument):
    with pytest.raises(ValueError, match=f"{argument}=0"):
        annealing.tune(tiny_vae(), binary_images(2), **{"temperatures": 3, argument: 0})


def test_annealing_with_a_flow_prior_agrees_with_importance_sampling():
    vae, x = tiny_vae(2, flow=likelihood.Flow(2, 2)), binary_images(40)
    sampled = importance_sampling(vae, x, 5000)
    for from_prior in (True, False):
        path = annealing.tune(vae, x, 40, from_prior=from_prior)
        assert (annealing.lower(vae, x, path, 20) - sampled.log_p).mean().abs() < 0.2


def test_annealing_leaves_gradients_and_training_mode_alone():
    vae, x = tiny_vae().train(), binary_images(4)
    annealing.lower(vae, x, annealing.tune(vae, x, 3), 2)
    assert vae.training
    assert all(parameter.grad is None for parameter in vae.parameters())


def test_pixels_that_are_not_binary_are_refused():
    with pytest.raises(ValueError, match=r"outside \{0, 1\}"):
        annealing.tune(tiny_vae(), torch.full((1, 1, 4, 4), 0.5), 3)
