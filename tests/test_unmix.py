import hashlib
import math

import pytest
import torch
from torch import nn

from lib import evaluate, nets, unmix
from lib.train import Batches
from lib.unmix import DifferenceUnmixer, FreeUnmixer


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def pairs(count: int = 6, shape=(3, 8, 8)) -> torch.Tensor:
    return torch.rand(count, 2, *shape)


class Answer(nn.Module):
    """A 'network' that gives what it was told to."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, m: torch.Tensor) -> torch.Tensor:
        return self.logits


# --- pairs -----------------------------------------------------------------------------------------


def some_images(count, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("size", "count", "pairs"), [(2, None, 1), (7, None, 3), (50, 25, 25), (50, 4, 4)])
def test_fixed_pairs_use_each_image_once(size, count, pairs):
    index = unmix.fixed_pairs(some_images(size), count)
    assert index.shape == (pairs, 2)
    assert len(index.unique()) == 2 * pairs and index.min() >= 0 and index.max() < size


def test_fixed_pairs_are_those_of_the_page_whatever_the_order_of_the_copy():
    """Sorted by SHA-256 of the bytes, two by two: another copy, in another order, gives the same pairs."""
    images = some_images(31)
    pairs = images[unmix.fixed_pairs(images)]
    by_hand = sorted(images, key=lambda image: hashlib.sha256(bytes(image.flatten().tolist())).hexdigest())
    assert torch.equal(pairs, torch.stack(by_hand[:30]).view(15, 2, 3, 4, 4))
    shuffled = images[torch.randperm(31)]
    assert torch.equal(shuffled[unmix.fixed_pairs(shuffled)], pairs)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(unmix.fixed_pairs(channels_last), unmix.fixed_pairs(images)), "bytes of planes, as C orders them"
    assert unmix.digest(shuffled[unmix.fixed_pairs(shuffled)]) == unmix.digest(pairs)
    assert unmix.digest(pairs) == hashlib.sha256(bytes(pairs.flatten().tolist())).hexdigest()
    assert unmix.digest(pairs.flip(1)) != unmix.digest(pairs)


def test_the_first_pairs_do_not_depend_on_how_many_are_asked_for():
    images = some_images(40)
    assert torch.equal(unmix.fixed_pairs(images, 6), unmix.fixed_pairs(images)[:6])


@pytest.mark.parametrize("size", [0, 1])
def test_fewer_than_two_images_make_no_pair(size):
    with pytest.raises(ValueError, match=f"{size} images make 1 to 0 pairs"):
        unmix.fixed_pairs(some_images(size))
    with pytest.raises(ValueError, match=f"{size} images: a pair needs two"):
        unmix.halves(torch.rand(size, 3, 8, 8))


@pytest.mark.parametrize("count", [0, 3])
def test_more_pairs_than_images_make_are_refused(count):
    with pytest.raises(ValueError, match=f"count={count}: 4 images make 1 to 2"):
        unmix.fixed_pairs(some_images(4), count)


def test_images_without_bytes_of_their_own_are_refused():
    with pytest.raises(ValueError, match="float32 images: the bytes of uint8"):
        unmix.fixed_pairs(torch.rand(4, 3, 4, 4))


def test_pairs_across_two_sets_keep_their_places_and_are_drawn_anew():
    low, high = torch.arange(8.0).view(8, 1, 1, 1), torch.arange(100.0, 108).view(8, 1, 1, 1)
    drawn = [unmix.across(low, high) for _ in range(2)]
    for x in drawn:
        assert torch.equal(x[:, 0], low) and torch.equal(x[:, 1].flatten().sort().values, high.flatten())
    assert not torch.equal(*drawn)


def test_batches_in_halves_pair_every_image_once_an_epoch_and_never_with_itself():
    marked = torch.arange(24, dtype=torch.float32).view(24, 1, 1, 1)
    batches = Batches(marked, batch_size=8)
    seen = [{tuple(sorted(pair)) for _ in range(3) for pair in unmix.halves(next(batches)[0])[:, :, 0, 0, 0].tolist()}
            for _ in range(2)]  # fmt: skip
    for epoch in seen:
        assert sorted(sum(epoch, ())) == list(range(24))
    assert seen[0] != seen[1], "pairs must be drawn afresh"


def test_an_odd_image_is_left_out():
    x = torch.rand(5, 3, 8, 8)
    assert torch.equal(unmix.halves(x), torch.stack([x[:2], x[2:4]], 1))


# --- mixtures and answers --------------------------------------------------------------------------


def test_the_mixture_weighs_the_first_image():
    x = pairs()
    torch.testing.assert_close(unmix.mix(x), x.mean(1))
    torch.testing.assert_close(unmix.mix(x, 0.8), 0.8 * x[:, 0] + 0.2 * x[:, 1])


@pytest.mark.parametrize("weight", [0, 1, -0.1, 1.5])
def test_weights_that_do_not_mix_are_refused(weight):
    with pytest.raises(ValueError, match="weight="):
        unmix.mix(pairs(), weight)
    with pytest.raises(ValueError, match="weight="):
        DifferenceUnmixer(nn.Identity(), weight)


@pytest.mark.parametrize("weight", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("size", [0.1, 3, 100])
def test_whatever_the_network_answers_the_mixture_holds_and_pixels_lie_in_the_unit_interval(weight, size):
    m = unmix.mix(pairs(), weight)
    x_hat = DifferenceUnmixer(Answer(size * torch.randn(6, 3, 8, 8)), weight)(m)
    assert x_hat.min() >= -1e-6 and x_hat.max() <= 1 + 1e-6
    assert unmix.mixture_error(m, x_hat, weight).max() < 5e-7


@pytest.mark.parametrize("weight", [0.5, 0.2, 0.9])
def test_every_pair_has_a_difference_that_the_network_can_answer(weight):
    """The bounds on d are those that pixels in [0, 1] imply, no narrower: the true pair can be reached."""
    x = pairs()
    x[0, 0], x[0, 1] = 1.0, 0.0
    m, d = unmix.mix(x, weight), x[:, 0] - x[:, 1]
    highest = DifferenceUnmixer(Answer(torch.full_like(d, 50)), weight)(m)
    lowest = DifferenceUnmixer(Answer(torch.full_like(d, -50)), weight)(m)
    assert (highest[:, 0] - highest[:, 1] >= d - 1e-6).all()
    assert (lowest[:, 0] - lowest[:, 1] <= d + 1e-6).all()
    # At the ends one of the two images has a pixel at its limit.
    for ends in (highest, lowest):
        assert (torch.minimum(ends, 1 - ends).amin(1).abs() < 1e-6).all()


def test_a_positive_answer_makes_the_first_image_the_brighter_one():
    m = torch.full((1, 3, 8, 8), 0.4)
    x_hat = DifferenceUnmixer(Answer(torch.ones_like(m)), 0.3)(m)
    assert (x_hat[:, 0] > x_hat[:, 1]).all()


def test_noise_beyond_the_unit_interval_gives_answers_inside_it():
    m = torch.tensor([-0.2, 1.3]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    x_hat = DifferenceUnmixer(Answer(torch.randn(2, 3, 8, 8)))(m)
    assert x_hat.isfinite().all() and x_hat.min() >= 0 and x_hat.max() <= 1


def test_the_free_unmixer_gives_two_images_and_owes_the_mixture_nothing():
    unmixer = FreeUnmixer(nets.UNet((3, 8, 8), [4, 6], 3, decoders=2))
    m = unmix.mix(pairs())
    x_hat = unmixer(m)
    assert x_hat.shape == (6, 2, 3, 8, 8) and x_hat.min() >= 0 and x_hat.max() <= 1
    assert unmix.mixture_error(m, x_hat).min() > 0.05


def test_the_free_unmixers_first_decoder_answers_the_first_image():
    logits = torch.cat([torch.full((1, 3, 8, 8), 9.0), torch.full((1, 3, 8, 8), -9.0)], 1)
    x_hat = FreeUnmixer(Answer(logits))(torch.rand(1, 3, 8, 8))
    assert x_hat[0, 0].min() > 0.99 and x_hat[0, 1].max() < 0.01


def test_zeros_mean_the_mixture_twice_where_it_was_asked_for():
    m = unmix.mix(pairs())
    zeros = Answer(torch.zeros(6, 6, 8, 8))
    torch.testing.assert_close(FreeUnmixer(zeros, near_mixture=True)(m), m[:, None].expand(-1, 2, -1, -1, -1))
    assert (FreeUnmixer(zeros)(m) == 0.5).all()


# --- losses ----------------------------------------------------------------------------------------


def test_the_error_is_the_sum_of_two_means():
    x, x_hat = pairs(), pairs()
    by_hand = [sum(nn.functional.mse_loss(x_hat[n, k], x[n, k]) for k in range(2)) for n in range(6)]
    torch.testing.assert_close(unmix.pair_error(x, x_hat), torch.stack(by_hand))


def test_pit_does_not_see_a_swap_of_answers_or_of_targets():
    x, x_hat = pairs(), pairs()
    error = unmix.pit_error(x, x_hat)
    for other in (unmix.pit_error(x.flip(1), x_hat), unmix.pit_error(x, x_hat.flip(1))):
        torch.testing.assert_close(other, error)
    mixed = x_hat.clone()
    mixed[::2] = mixed[::2].flip(1)
    torch.testing.assert_close(unmix.pit_error(x, mixed), error, msg="the order is each pair's own")


def test_pit_chooses_one_order_for_a_whole_pair_not_for_each_pixel():
    """Half of each answer swapped: an assignment per pixel would call that perfect."""
    x = pairs(1)
    x_hat = x.clone()
    x_hat[..., :4] = x.flip(1)[..., :4]
    assert unmix.pit_error(x, x_hat).item() > 0.05
    assert unmix.pit_error(x, x.flip(1)).item() == 0


def test_pit_of_differences_is_the_formula_of_the_text():
    """With w = 1/2 and answers m ± h: ½ min over signs of ‖d_hat − s d‖², d = x₁ − x₂, as means per pixel."""
    x = pairs()
    m = unmix.mix(x)
    x_hat = DifferenceUnmixer(Answer(torch.randn(6, 3, 8, 8)))(m)
    d, d_hat = x[:, 0] - x[:, 1], x_hat[:, 0] - x_hat[:, 1]
    inner = (d * d_hat).mean((1, 2, 3)).abs()
    by_text = 0.5 * ((d**2).mean((1, 2, 3)) + (d_hat**2).mean((1, 2, 3))) - inner
    torch.testing.assert_close(unmix.pit_error(x, x_hat), by_text)


def test_the_mixture_twice_costs_the_floor_in_both_orders():
    x = pairs()
    twice = unmix.mix(x)[:, None].expand_as(x)
    floor = 0.5 * ((x[:, 0] - x[:, 1]) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(unmix.pair_error(x, twice), floor)
    torch.testing.assert_close(unmix.pit_error(x, twice), floor)


def test_the_best_assignment_is_what_pit_scores():
    x, x_hat = pairs(), pairs()
    assigned = unmix.best_assignment(x, x_hat)
    torch.testing.assert_close(unmix.pair_error(x, assigned), unmix.pit_error(x, x_hat))
    assert torch.equal(unmix.best_assignment(x, x.flip(1)), x)


@pytest.mark.parametrize("pit", [False, True])
def test_plain_error_teaches_the_mixture_and_pit_does_not(pit):
    """One pair in both orders: the plain loss is least at the mixture itself, PIT's at the images."""
    x = pairs(1)
    both = torch.cat([x, x.flip(1)])
    m = unmix.mix(both)
    logits = nn.Parameter(0.5 * torch.randn(1, 6, 8, 8))
    unmixer = FreeUnmixer(Answer(logits.expand(2, -1, -1, -1)))
    optimizer = torch.optim.Adam([logits], 0.3)
    for _ in range(150):
        # The network sees the same m for both orders, so it has one answer for both.
        unmixer.network.logits = logits.expand(2, -1, -1, -1)
        optimizer.zero_grad()
        criterion = unmix.pit_error if pit else unmix.pair_error
        loss = unmix.unmix_loss(unmixer, both, m, criterion)["loss"]
        loss.backward()
        optimizer.step()
    x_hat = unmixer(m)[:1].detach()
    twice = m[:1, None].expand_as(x)
    if pit:
        assert loss.item() < 1e-3
    else:
        torch.testing.assert_close(x_hat, twice, atol=0.02, rtol=0)
        assert loss.item() == pytest.approx(unmix.pair_error(x, twice).item(), rel=0.01)


def test_the_mean_with_the_mirror_keeps_mixture_order_and_symmetry():
    class Guess(nn.Module):
        """Answers whose order depends on the mixture's left edge, so that mirrors come out swapped."""

        def forward(self, m):
            d = 0.1 * m + 0.05 * torch.arange(8) / 8  # not the same from both sides
            swap = (m[:, :, :, 0].mean((1, 2)) > 0.5)[:, None, None, None, None]
            x_hat = torch.stack([m + d, m - d], 1)
            return torch.where(swap, x_hat.flip(1), x_hat)

    x = pairs(20)
    x[:, :, :, :, 0], x[:, :, :, :, -1] = 0.9, 0.1
    m = unmix.mix(x)
    mean = unmix.MirrorMean(Guess())
    x_hat = mean(m)
    assert unmix.mixture_error(m, x_hat).max() < 1e-6
    # Had the orders been mixed up, the differences would have cancelled.
    d = 0.1 * m + 0.05 * (torch.arange(8) + torch.arange(8).flip(0)) / 16
    torch.testing.assert_close((x_hat[:, 0] - x_hat[:, 1]).abs() / 2, d)
    # It answers a mirrored mixture with the mirrored answer, up to the order.
    torch.testing.assert_close(unmix.best_assignment(x_hat, mean(m.flip(3)).flip(4)), x_hat)


def test_in_decibels_each_pair_counts_by_its_own_error():
    """The loss is the mean over pairs of the logarithm, not the logarithm of the mean; its gradient is relative."""
    x = pairs(2)
    m = unmix.mix(x)
    bad, good = x + 0.2, x.flip(1) + 0.002  # errors 0.08 and 8e-6, the second in the other order
    x_hat = torch.stack([bad[0], good[1]]).requires_grad_()
    found = unmix.unmix_loss(lambda m: x_hat, x, m, unmix.pit_decibels)
    expected = (10 * math.log10(0.08 + 1e-4) + 10 * math.log10(8e-6 + 1e-4)) / 2
    assert found["loss"].item() == pytest.approx(expected, abs=1e-3)
    found["loss"].backward()
    # d/de of log10(e²·2 + ε) per pair, where the mean of errors would have given 0.2 : 0.002.
    sizes = x_hat.grad.flatten(1).norm(dim=1)
    relative = (0.2 / (0.08 + 1e-4)) / (0.002 / (8e-6 + 1e-4))
    assert (sizes[0] / sizes[1]).item() == pytest.approx(relative, rel=1e-2)
    # A pair answered without any error is no infinity.
    perfect = x.clone().requires_grad_()
    unmix.unmix_loss(lambda m: perfect, x, m, unmix.pit_decibels)["loss"].backward()
    assert perfect.grad.isfinite().all()


def test_a_constrained_network_learns_a_single_pair():
    torch.manual_seed(1)
    x = pairs(2, (3, 16, 16))
    m = unmix.mix(x)
    unmixer = DifferenceUnmixer(nets.UNet((3, 16, 16), [16, 32], 3, patch=2))
    optimizer = torch.optim.Adam(unmixer.parameters(), 3e-3)
    first = unmix.unmix_loss(unmixer, x, m)["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = unmix.unmix_loss(unmixer, x, m)["loss"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first


@pytest.mark.parametrize("orders", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_answers_are_assigned_pair_by_pair_and_image_by_image(orders):
    """Each pair in an order of its own; one order for the batch, or for a pixel, would leave a pair wrong."""
    x = pairs(2)
    answers = torch.stack([x[n].flip(0) if swapped else x[n] for n, swapped in enumerate(orders)])
    assert torch.equal(unmix.best_assignment(x, answers), x)
    assert unmix.pit_error(x, answers).max() == 0
    # Half of every image swapped: the answers stay whole, as they came, in one of two orders.
    torn = x.clone()
    torn[..., :3] = x.flip(1)[..., :3]
    assigned = unmix.best_assignment(x, torn)
    for n in range(2):
        assert any(torch.equal(assigned[n], whole) for whole in (torn[n], torn[n].flip(0)))


def test_what_is_computed_from_the_mixture_costs_the_floor_and_its_distance_from_the_mixture():
    """Both orders of each pair, equally often: the mean error of any answer is a sum of two."""
    x, x_hat = pairs(), pairs()
    twice = unmix.mix(x)[:, None].expand_as(x)
    error = 0.5 * (unmix.pair_error(x, x_hat) + unmix.pair_error(x.flip(1), x_hat))
    torch.testing.assert_close(error, unmix.pair_error(x, twice) + unmix.pair_error(twice, x_hat))


def test_noise_on_the_mixture_costs_twice_its_square_whatever_the_difference():
    x = 0.3 + 0.4 * pairs()
    noise = 0.05 * torch.rand(6, 3, 8, 8)
    x_hat = DifferenceUnmixer(Answer(torch.randn(6, 3, 8, 8)))(unmix.mix(x) + noise)
    d, d_hat = x[:, 0] - x[:, 1], x_hat[:, 0] - x_hat[:, 1]
    by_text = (2 * noise**2 + 0.5 * (d_hat - d) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(unmix.pair_error(x, x_hat), by_text)


def test_the_wrong_order_costs_what_the_text_says():
    x = pairs()
    x_hat = DifferenceUnmixer(Answer(torch.randn(6, 3, 8, 8)))(unmix.mix(x))
    d, d_hat = x[:, 0] - x[:, 1], x_hat[:, 0] - x_hat[:, 1]
    price = (unmix.pair_error(x, x_hat) - unmix.pair_error(x, x_hat.flip(1))).abs()
    torch.testing.assert_close(price, 2 * (d * d_hat).mean((1, 2, 3)).abs())


# --- tasks and scores -------------------------------------------------------------------------------


def test_a_task_pairs_mirrors_mixes_and_adds_noise():
    images = torch.rand(400, 3, 8, 8)
    x, m = unmix.Task(weight=0.8)(images)
    assert torch.equal(x, unmix.halves(images)) and torch.equal(m, unmix.mix(x, 0.8))
    x, m = unmix.Task(noise=0.2)(images)
    noise = m - unmix.mix(x)
    assert noise.mean().abs() < 0.005 and noise.std().item() == pytest.approx(0.2, rel=0.03)
    x, m = unmix.Task(unmix.across, flips=True)(images, 2 + images)
    mirrored = (x[:, 0] == images.flip(3)).flatten(1).all(1)
    assert 150 < mirrored.sum() < 250 and (x[:, 0] == images).flatten(1).all(1).sum() == 400 - mirrored.sum()
    assert x[:, 0].max() <= 1 and x[:, 1].min() >= 2
    torch.testing.assert_close(m, unmix.mix(x))


def test_a_task_without_noise_draws_no_random_number():
    before = torch.get_rng_state()
    unmix.Task()(torch.rand(4, 3, 8, 8, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_task_that_mixes_nothing_is_refused_before_it_runs(weight):
    with pytest.raises(ValueError, match=f"weight={weight}"):
        unmix.Task(weight=weight)


def test_the_score_is_a_mean_of_decibels_in_one_order_a_pair():
    x = torch.rand(7, 2, 3, 16, 16)
    noise = torch.tensor([0.02, 0.3]).view(2, 1, 1, 1) * torch.randn_like(x)
    x_hat = (x + noise).clamp(0, 1)
    decibels = -10 * ((x - x_hat) ** 2).mean((2, 3, 4)).log10().mean(1)
    swapped = x_hat.clone()
    swapped[1::2] = swapped[1::2].flip(1)
    for answers, assign in ((x_hat, False), (x_hat, True), (swapped, True)):
        found = unmix.scores(x, answers, assign, batch=3)
        torch.testing.assert_close(found["psnr"], decibels)
        torch.testing.assert_close(found["error"], unmix.pair_error(x, x_hat))
    wrong = unmix.scores(x, swapped, assign=False)
    assert (wrong["psnr"][1::2] < decibels[1::2]).all() and (wrong["ssim"][1::2] < found["ssim"][1::2]).all()
    by_image = evaluate.ssim_each(x.flatten(0, 1), x_hat.flatten(0, 1)).view(-1, 2)
    torch.testing.assert_close(found["ssim"], by_image.mean(1))


def test_the_mixture_twice_has_the_psnr_of_half_the_difference():
    x = torch.rand(3, 2, 3, 16, 16)
    found = unmix.scores(x, unmix.twice(unmix.mix(x)))
    half = (x[:, 0] - x[:, 1]) / 2
    torch.testing.assert_close(found["psnr"], -10 * (half**2).mean((1, 2, 3)).log10())


def test_the_coded_unmixers_loss_is_the_negative_elbo_of_both_images():
    x = pairs(5)
    m = unmix.mix(x)
    unmixer = unmix.CodeUnmixer(nets.conv_encoder((3, 8, 8), 2, 8), nets.conv_decoder(4, 2, (6, 8, 8))).eval()
    assert unmixer(m).shape == x.shape
    draws = [unmix.elbo_loss(unmixer, x, m)["loss"].item() for _ in range(3000)]
    model = unmixer.vae
    mu, logvar = model.encode(m)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (0.5 * logvar).exp()), torch.distributions.Normal(0.0, 1.0)
    ).sum(1)
    likelihood = []
    for _ in range(3000):
        z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
        normal = torch.distributions.Normal(model.decode(z), model.log_sigma.exp())
        likelihood.append(normal.log_prob(x.flatten(1, 2)).flatten(1).sum(1).mean().item())
    spread = torch.tensor(likelihood).std().item() * (2 / 3000) ** 0.5
    expected = kl.mean().item() - sum(likelihood) / 3000
    assert sum(draws) / 3000 == pytest.approx(expected, abs=5 * spread + 1e-3)


def test_the_coded_unmixer_tells_first_from_second_by_its_channels():
    class Both(nn.Module):
        def forward(self, z):
            return torch.cat([torch.full((len(z), 3, 8, 8), 9.0), torch.full((len(z), 3, 8, 8), -9.0)], 1)

    x_hat = unmix.CodeUnmixer(nets.conv_encoder((3, 8, 8), 2, 8), Both())(torch.rand(2, 3, 8, 8))
    assert x_hat[:, 0].min() > 0.99 and x_hat[:, 1].max() < 0.01


# --- what can be had without a look ----------------------------------------------------------------


def error_of_difference(x, d):
    m = unmix.mix(x)
    return unmix.pit_error(x, torch.stack([m + d / 2, m - d / 2], 1)).mean()


def test_the_fixed_difference_beats_the_mixture_and_its_neighbours():
    x = pairs(300, (1, 3, 3))
    x[:, :, 0, 0] += 2 * torch.rand(300, 2, 1)  # one direction with a larger spread
    d = unmix.fixed_difference(x)
    best = error_of_difference(x, d)
    assert best < error_of_difference(x, torch.zeros_like(d))
    for _ in range(20):
        assert best < error_of_difference(x, d + 0.1 * torch.randn_like(d))
    # There ⟨d, D⟩ sign⟨d, D⟩ has the mean ‖d‖², and so much of the floor is gone.
    floor = error_of_difference(x, torch.zeros_like(d))
    torch.testing.assert_close(best, floor - 0.5 * (d**2).mean())


def test_the_fixed_difference_of_a_gaussian_has_the_length_of_a_half_normal():
    differences = torch.randn(20_000, 1, 1, 2, dtype=torch.float64) * torch.tensor([3.0, 0.1])
    d = unmix.fixed_difference(torch.stack([differences, torch.zeros_like(differences)], 1))
    assert d.flatten()[0].abs().item() == pytest.approx(3 * (2 / torch.pi) ** 0.5, rel=0.02)


@pytest.mark.parametrize("w", [0.5, 0.7, 0.2])
def test_at_an_uneven_weight_a_linear_answer_passes_the_mixture_twice(w):
    """Independent pixels of mean 0 and variance 1: the errors are 1 and 2 (w² + (1 − w)²), in the order given."""
    x = torch.randn(50, 2, 3, 32, 32, dtype=torch.float64)
    m, square = unmix.mix(x, w), w**2 + (1 - w) ** 2
    d = (2 * w - 1) / square * m
    linear = torch.stack([m + (1 - w) * d, m - w * d], 1)
    twice = m[:, None].expand_as(x)
    assert unmix.pair_error(x, linear).mean().item() == pytest.approx(1, rel=0.02)
    assert unmix.pair_error(x, twice).mean().item() == pytest.approx(2 * square, rel=0.02)
    for image in range(2):  # and the gain is the same on both
        ratio = ((x - twice)[:, image] ** 2).mean() / ((x - linear)[:, image] ** 2).mean()
        assert ratio.item() == pytest.approx(2 * square, rel=0.03)
    # No other linear answer does better.
    for wrong in (0.8, 1.2):
        other = torch.stack([m + (1 - w) * (d + (wrong - 1) * m), m - w * (d + (wrong - 1) * m)], 1)
        assert unmix.pair_error(x, other).mean() > unmix.pair_error(x, linear).mean()


def test_flips_mirror_some_images_and_leave_the_others():
    x = torch.rand(200, 3, 4, 4)
    flipped = unmix.random_flips(x)
    same = (flipped == x).flatten(1).all(1)
    assert torch.equal(flipped[~same], x.flip(3)[~same])
    assert 60 < same.sum() < 140


# --- the search ------------------------------------------------------------------------------------


def test_the_search_finds_every_pair_it_holds():
    images = torch.rand(12, 3, 4, 4)
    first, second = torch.triu_indices(12, 12, 1)
    found = unmix.search((images[first] + images[second]) / 2, images, batch=7)
    assert torch.equal(found[0], first) and torch.equal(found[1], second)


def test_the_search_never_takes_one_image_twice():
    images = torch.rand(5, 3, 4, 4)
    first, second = unmix.search(images, images)  # each m *is* an image
    assert (first < second).all()


# --- details ---------------------------------------------------------------------------------------


class Seeing(Answer):
    """A 'network' that keeps what it was shown."""

    def forward(self, m):
        self.seen = m
        return self.logits


@pytest.mark.parametrize(("make", "channels"), [(FreeUnmixer, 6), (DifferenceUnmixer, 3)])
def test_networks_are_shown_mixtures_from_minus_one_to_one_and_answer_in_single_precision(make, channels):
    network = Seeing(torch.randn(6, channels, 8, 8).bfloat16())
    m = unmix.mix(pairs())
    assert make(network)(m).dtype == torch.float32
    torch.testing.assert_close(network.seen, 2 * m - 1)


def test_the_difference_is_a_tanh_of_the_answer_within_its_bounds():
    m, logits = torch.full((1, 1, 1, 2), 0.4), torch.tensor([[[[0.7, -0.7]]]])
    x_hat = DifferenceUnmixer(Answer(logits), 0.3)(m)
    d, t = x_hat[:, 0] - x_hat[:, 1], math.tanh(0.7)
    # d is at most min((1 − m)/(1 − w), m/w) = 6/7, and at least −min(m/(1 − w), (1 − m)/w) = −4/7.
    assert d.flatten().tolist() == pytest.approx([6 / 7 * t, -4 / 7 * t])
    assert DifferenceUnmixer(nn.Identity()).weight == 0.5


def test_the_mixture_error_is_the_worst_pixels_by_its_size():
    x_hat = torch.zeros(2, 2, 1, 2, 2)
    m = torch.tensor([[[0.1, -0.3], [0.0, 0.2]], [[0.0, 0.0], [0.0, 0.0]]])[:, None]
    assert unmix.mixture_error(m, x_hat).tolist() == pytest.approx([0.3, 0.0])
    assert unmix.mixture_error(m, x_hat + torch.tensor([1.0, 0.0]).view(2, 1, 1, 1), 0.25).tolist() == pytest.approx(
        [0.55, 0.25]
    )


def test_training_is_blind_to_the_order_unless_asked_otherwise():
    x, x_hat = pairs(), pairs()
    m = unmix.mix(x)
    found = unmix.unmix_loss(Answer(x_hat), x, m)
    torch.testing.assert_close(found["loss"], unmix.pit_error(x, x_hat).mean())
    plain = unmix.unmix_loss(Answer(x_hat), x, m, unmix.pair_error)
    torch.testing.assert_close(plain["loss"], unmix.pair_error(x, x_hat).mean())
    decibels = unmix.unmix_loss(Answer(x_hat), x, m, unmix.pit_decibels)
    torch.testing.assert_close(decibels["loss"], (10 * (unmix.pit_error(x, x_hat) + 1e-4).log10()).mean())


def test_as_many_pairs_as_images_make_unless_fewer_are_asked_for():
    images = torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8)
    assert len(unmix.fixed_pairs(images)) == len(unmix.fixed_pairs(images, 4)) == 4
    assert torch.equal(unmix.fixed_pairs(images, 1), unmix.fixed_pairs(images)[:1])


def test_two_images_make_the_smallest_batch_and_the_smallest_set():
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(unmix.halves(x), x[None])
    first, second = unmix.search(x.mean(0, keepdim=True), x)
    assert (first.item(), second.item()) == (0, 1)


def test_flips_are_left_to_right_and_each_images_own():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 2, 3).expand(400, -1, -1, -1)
    flipped = (unmix.random_flips(x) == x.flip(3)).flatten(1).all(1).float()
    # Five standard errors of a half among 400.
    assert abs(flipped.mean().item() - 0.5) < 5 * 0.5 / 20


def test_the_fixed_difference_has_the_shape_of_an_image_and_is_a_fixed_point():
    x = pairs(200, (2, 3, 4))
    d = unmix.fixed_difference(x)
    assert d.shape == (2, 3, 4)
    differences = x[:, 0] - x[:, 1]
    signs = torch.sign((differences * d).sum((1, 2, 3)))
    torch.testing.assert_close((signs.view(-1, 1, 1, 1) * differences).mean(0), d)
