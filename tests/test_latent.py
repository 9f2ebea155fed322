"""Movement in a space of codes against closed forms."""

import math

import pytest
import torch

from lib import latent


def test_a_straight_line_begins_and_ends_at_its_codes():
    z0, z1 = torch.randn(2, 5, 3)
    path = latent.lerp(z0, z1, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(path[0], z0)
    torch.testing.assert_close(path[1], 0.75 * z0 + 0.25 * z1)
    torch.testing.assert_close(path[2], z1)


def test_fitted_codes_have_the_mean_and_covariance_of_the_codes():
    torch.manual_seed(0)
    mixing = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    z = torch.randn(20_000, 2) @ mixing.T + torch.tensor([3.0, -1.0])
    drawn = latent.draw_fitted(z, 20_000)
    assert drawn.dtype == torch.float32
    # Five standard errors of a mean and of a covariance over 20,000 draws.
    torch.testing.assert_close(drawn.mean(0), z.mean(0), atol=5 * 2 * 2 / math.sqrt(2e4), rtol=0)
    torch.testing.assert_close(drawn.T.cov(), z.T.cov(), atol=5 * 4 * 2 / math.sqrt(1e4), rtol=0)


def test_a_dimension_that_is_never_used_can_be_fitted():
    z = torch.randn(50, 3)
    z[:, 1] = 2.0
    assert latent.draw_fitted(z, 10).isfinite().all()


def test_random_directions_keep_the_lengths_and_have_no_favourite():
    torch.manual_seed(0)
    lengths = torch.full((4000,), 3.0)
    z = latent.random_directions(lengths, 5)
    torch.testing.assert_close(z.norm(dim=1), lengths)
    assert z.mean(0).abs().max() < 0.1
    torch.testing.assert_close(z.T.cov(), 9 / 5 * torch.eye(5), atol=0.15, rtol=0)


def test_nearest_distances_are_taken_over_the_whole_bank_whatever_the_batch():
    z, bank = torch.randn(7, 4), torch.randn(11, 4)
    by_hand = torch.stack([(code - bank).norm(dim=1).min() for code in z])
    torch.testing.assert_close(latent.nearest_distances(z, bank, batch=3), by_hand)


def test_emptiness_is_one_for_codes_like_the_tests_and_does_not_know_the_scale():
    torch.manual_seed(0)
    bank, test, near = torch.randn(3, 2000, 5)
    far = near + 10
    assert latent.emptiness(near, test, bank) == pytest.approx(1, abs=0.1)
    assert latent.emptiness(far, test, bank) > 5
    scaled = latent.emptiness(7 * far, 7 * test, 7 * bank)
    assert scaled == pytest.approx(latent.emptiness(far, test, bank), rel=1e-4)


def test_a_nudge_is_a_share_of_the_distance_between_two_codes():
    torch.manual_seed(0)
    z = torch.randn(4000, 6) * torch.tensor([1.0, 2, 3, 1, 1, 1])
    typical = (z[:2000] - z[2000:]).pow(2).sum(1).mean().sqrt()
    step = (latent.nudge(z, 0.1) - z).norm(dim=1)
    assert step.std() < 1e-4 * step.mean()
    assert step.mean().item() == pytest.approx(0.1 * typical.item(), rel=0.05)


def test_interpolations_meet_their_ends_and_the_spherical_one_keeps_the_length():
    z0, z1 = torch.randn(2, 4, 50)
    z0, z1 = 7 * z0 / z0.norm(dim=1, keepdim=True), 7 * z1 / z1.norm(dim=1, keepdim=True)
    alpha = torch.linspace(0, 1, 5)
    for path in (latent.lerp(z0, z1, alpha), latent.slerp(z0, z1, alpha)):
        assert path.shape == (5, 4, 50)
        assert torch.allclose(path[0], z0, atol=1e-4) and torch.allclose(path[-1], z1, atol=1e-4)
    assert torch.allclose(latent.slerp(z0, z1, alpha).norm(dim=2), torch.full((5, 4), 7.0), atol=1e-4)
    halfway = latent.slerp(torch.tensor([[1.0, 0]]), torch.tensor([[0, 1.0]]), torch.tensor([0.5]))
    assert halfway.flatten().tolist() == pytest.approx([0.5**0.5, 0.5**0.5])


def test_the_great_circle_is_walked_at_an_even_pace():
    """At alpha the angle from z0 is alpha times the whole one; a straight line set to length is off between."""
    z0, z1, alpha = torch.randn(4, 9), torch.randn(4, 9), torch.tensor([0.1, 0.25, 0.8])
    z0, z1 = z0 / z0.norm(dim=1, keepdim=True), z1 / z1.norm(dim=1, keepdim=True)
    angles = (latent.slerp(z0, z1, alpha) * z0).sum(2).acos()
    assert torch.allclose(angles, alpha[:, None] * (z0 * z1).sum(1).acos(), atol=1e-4)


def test_the_same_or_opposite_codes_make_no_nan():
    z = torch.randn(2, 9)
    for other in (z, -z):
        assert latent.slerp(z, other, torch.linspace(0, 1, 3)).isfinite().all()


def test_emptiness_compares_medians():
    bank = torch.zeros(1, 1)
    z, test = torch.tensor([[1.0], [2.0], [90.0]]), torch.tensor([[0.1], [0.5], [7.0]])
    assert latent.emptiness(z, test, bank) == pytest.approx(4)


def test_a_nudge_has_no_favourite_direction():
    torch.manual_seed(0)
    z = torch.randn(4000, 4)
    step = latent.nudge(z, 0.5) - z
    direction = step / step.norm(dim=1, keepdim=True)
    # Each number of a direction has mean 0 and variance 1/4.
    assert direction.mean(0).abs().max() < 5 * 0.5 / math.sqrt(4000)
    assert torch.equal(latent.nudge(z, 0.0), z)


def test_directions_are_taken_one_a_length():
    z = latent.random_directions(torch.tensor([1.0, 5.0, 0.0]), 4)
    torch.testing.assert_close(z.norm(dim=1), torch.tensor([1.0, 5.0, 0.0]))
    assert not torch.allclose(z[1] / 5, z[0])


def test_paths_are_one_a_pair_of_codes_at_every_alpha():
    z0, z1 = torch.randn(2, 3, 5)
    alpha = torch.tensor([0.0, 0.3, 0.7, 1.0])
    for walk in (latent.lerp, latent.slerp):
        path = walk(z0, z1, alpha)
        assert path.shape == (4, 3, 5)
        torch.testing.assert_close(path[1, 2], walk(z0[2:], z1[2:], alpha[1:2])[0, 0])
        torch.testing.assert_close(path.flip(0), walk(z1, z0, alpha), atol=1e-5, rtol=0)
