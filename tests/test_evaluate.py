import inspect
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from lib import evaluate
from lib.data import Split, load, to_bytes, to_unit
from lib.train import Batches


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Reader(nn.Module):
    """A 'classifier' whose features are three chosen pixels."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
        self.features[1].weight.data = torch.eye(16)[:3]
        self.head = nn.Linear(3, 2)


def images(count, shift=0):
    return to_bytes(torch.rand(count, 1, 4, 4) * 0.5 + shift)


def frechet_by_hand(a, b):
    x, y = (to_unit(split).flatten(1)[:, :3].double().numpy() for split in (a, b))
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)


def test_frechet_distance_is_the_formula():
    reference, other = images(400), images(300, shift=0.3)
    distance = evaluate.FrechetDistance(Reader(), reference)
    assert distance(other) == pytest.approx(frechet_by_hand(reference, other), rel=1e-3)
    assert distance(reference) == pytest.approx(0, abs=1e-5)


def test_frechet_distance_forgets_earlier_images_and_reads_both_kinds_of_pixels():
    distance = evaluate.FrechetDistance(Reader(), images(400))
    other = images(300, shift=0.3)
    first = distance(other)
    distance(images(300))
    assert distance(to_unit(other)) == pytest.approx(first, rel=1e-6)


def test_frechet_distance_switches_dropout_off():
    reader = Reader()
    reader.features.insert(0, nn.Dropout(0.9))
    reader.train()
    reference = images(200)
    assert evaluate.FrechetDistance(reader, reference)(reference) == pytest.approx(0, abs=1e-5)


def test_the_classifier_learns_and_names_classes():
    digits = load("digits")
    classifier = evaluate.train_classifier(digits.train, 10, epochs=3, width=8)
    assert not classifier.training
    assert evaluate.accuracy(classifier, digits.test) > 0.8
    probabilities = evaluate.class_probabilities(classifier, digits.test.images)
    assert torch.allclose(probabilities.sum(1), torch.ones(360), atol=1e-5)
    assert torch.equal(probabilities, evaluate.class_probabilities(classifier, digits.test.images))


def test_labels_beyond_the_classes_are_refused():
    split = Split(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(ValueError, match="Labels reach 3, but classes=3"):
        evaluate.train_classifier(split, 3, epochs=1)


def test_pca_error_is_what_the_left_out_singular_values_hold():
    train = images(60)
    x = to_unit(train).flatten(1)
    singular = torch.linalg.svdvals(x - x.mean(0))
    assert evaluate.pca_mse(train, train, 5) == pytest.approx((singular[5:] ** 2).sum().item() / x.numel(), rel=1e-3)


def test_pca_is_fitted_on_the_training_images():
    train, test = images(60), images(40, shift=0.3)
    x, x_test = (to_unit(split).flatten(1).double() for split in (train, test))
    mean = x.mean(0)
    axes = torch.linalg.svd(x - mean, full_matrices=False).Vh[:5]
    left = (x_test - mean) - (x_test - mean) @ axes.T @ axes
    assert evaluate.pca_mse(train, test, 5) == pytest.approx((left**2).mean().item(), rel=1e-3)


def test_batches_go_through_in_evaluation_mode_and_bytes_as_pixels():
    module = nn.Sequential(nn.Dropout(0.5), nn.Flatten()).train()
    x = images(7)
    found = evaluate.in_batches(module, x, batch=3)
    torch.testing.assert_close(found, to_unit(x).flatten(1))
    torch.testing.assert_close(evaluate.in_batches(module, to_unit(x), batch=3), found)
    assert module.training and not found.requires_grad


def test_errors_have_their_units():
    x = torch.zeros(2, 1, 2, 2)
    assert evaluate.mse(x, x + 0.1) == pytest.approx(0.01)
    assert evaluate.psnr(0.01) == pytest.approx(20)


def test_nearest_neighbours_vote():
    z_train, y_train = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]]), torch.tensor([0, 0, 0, 1, 1, 1])
    z_test = torch.tensor([[0.05], [5.3], [4.9]])
    assert evaluate.knn_accuracy(z_train, y_train, z_test, torch.tensor([0, 1, 0]), k=3) == pytest.approx(2 / 3)


def test_the_standard_error_shrinks_with_runs_and_needs_two():
    assert evaluate.mean_and_error([3.0]) == (3.0, None)
    mean, error = evaluate.mean_and_error([1.0, 3.0])
    assert (mean, error) == (2.0, pytest.approx(math.sqrt(2) / math.sqrt(2)))


# --- protocol_loss: the loss of reports 001 and 003 ------------------------------------------------


def test_the_protocols_loss_is_a_norm_over_a_whole_batch_of_grey_levels():
    torch.manual_seed(0)
    x, x_hat = torch.rand(2, 128, 1, 28, 28)
    parts = [(255 * (a - b)).pow(2).sum().sqrt() / (64 * 784) for a, b in ((x[:64], x_hat[:64]), (x[64:], x_hat[64:]))]
    assert evaluate.protocol_loss(x, x_hat) == pytest.approx(sum(parts).item() / 2, rel=1e-5)


def test_it_shrinks_with_the_root_of_the_batch_and_an_odd_batch_counts_like_the_others():
    x, x_hat = torch.zeros(104, 1, 4, 4), torch.full((104, 1, 4, 4), 0.1)
    rmse = 255 * math.sqrt(evaluate.mse(x, x_hat))
    assert evaluate.protocol_loss(x, x_hat, 104) == pytest.approx(rmse / math.sqrt(104 * 16))
    expected = (rmse / math.sqrt(64 * 16) + rmse / math.sqrt(40 * 16)) / 2
    assert evaluate.protocol_loss(x, x_hat) == pytest.approx(expected)


# --- chapter 4: scores of samples ------------------------------------------------------------------


def test_kernel_distance_is_the_unbiased_formula():
    real, fake = images(60), images(60, shift=0.3)
    x, y = (to_unit(part).flatten(1)[:, :3].double() for part in (real, fake))

    def kernel(a, b):
        return (a @ b.T / 3 + 1) ** 3

    def off_diagonal(matrix):
        return (matrix.sum() - matrix.trace()) / (60 * 59)

    expected = off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean()
    # Subsets as large as the sets: every subset is the whole, in another order.
    distance = evaluate.KernelDistance(Reader(), real, subsets=2, subset_size=60)
    mean, deviation = distance(fake)
    assert mean == pytest.approx(expected.item(), rel=1e-3)
    assert deviation == pytest.approx(0, abs=1e-4)
    assert distance(to_unit(fake))[0] == pytest.approx(mean, rel=1e-3), "earlier images are forgotten"


def test_real_images_have_kernel_distance_zero_on_average():
    distance = evaluate.KernelDistance(Reader(), images(400), subsets=30, subset_size=100)
    mean, deviation = distance(images(400))
    assert abs(mean) < deviation


def test_manifold_scores_by_hand():
    """On a line, k = 1. Real 0, 1, 3, 6 with radii 1, 1, 2, 3; fake 0.5, 5, 20 with radii 4.5, 4.5, 15."""
    real, fake = torch.tensor([[0.0], [1], [3], [6]]), torch.tensor([[0.5], [5], [20]])
    found = evaluate.manifold_scores(real, fake, k=1)
    # 0.5 is in the balls of 0 and 1; 5 in those of 3 (just) and 6; 20 in none.
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx(4 / 3)
    assert found["coverage"] == 1
    # Every real point is within 4.5 of 0.5 or 5.
    assert found["recall"] == 1
    assert evaluate.manifold_scores(real, fake + 100, k=1)["recall"] == 0


def test_precision_and_recall_tell_lost_modes_from_bad_samples():
    real = torch.cat([torch.randn(200, 4), 20 + torch.randn(200, 4)])
    one_mode = torch.randn(400, 4)
    found = evaluate.manifold_scores(real, one_mode)
    assert found["precision"] > 0.8 and found["recall"] < 0.55 and found["coverage"] < 0.55
    spread = torch.cat([real[::2] + 1e-3, 200 + 100 * torch.randn(200, 4)])
    found = evaluate.manifold_scores(real, spread)
    assert found["precision"] < 0.55 and found["recall"] > 0.9


@pytest.mark.parametrize("k", [0, 5])
def test_more_neighbours_than_examples_are_refused(k):
    with pytest.raises(ValueError, match=f"k={k}: choose 1 to 4"):
        evaluate.manifold_scores(torch.randn(9, 2), torch.randn(5, 2), k)


def test_the_nearest_image_is_found_across_batches():
    bank = images(50)
    found, index = evaluate.nearest(to_unit(bank[[3, 41]]) + 0.01, bank, batch=7)
    assert index.tolist() == [3, 41]
    assert found.tolist() == pytest.approx([0.01, 0.01], rel=1e-2)


def test_inception_without_its_weights_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such file.*inception_v3_google"):
        evaluate.Inception(tmp_path / "nowhere.pth")


def test_inception_stands_in_the_classifiers_place(tmp_path, monkeypatch):
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(3, 7)

        def forward(self, x):
            assert x.shape[1:] == (3, 299, 299)
            assert -1 <= x.min() < 0, "pixels in [−1, 1]"
            return self.fc(self.pool(x).flatten(1))

    monkeypatch.setattr("torchvision.models.inception_v3", lambda weights, init_weights: Small())
    torch.save(Small().state_dict(), tmp_path / "weights.pth")
    inception = evaluate.Inception(tmp_path / "weights.pth")
    assert inception.head.in_features == 3
    distance = evaluate.FrechetDistance(inception, images(30))
    assert distance(images(30, shift=0.4)) > distance(images(30))


def blobs(count, classes=4, dim=6, seed=0):
    """Overlapping clusters, one a class, around directions shared by all seeds."""
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    return 2 * centres[labels] + 1.5 * torch.randn(count, dim, generator=generator), labels


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (20, 0.1), (200, 0.07), (300, 1.0)])
def test_weighted_knn_is_scikit_learns(k, temperature):
    from sklearn.neighbors import KNeighborsClassifier

    (z_train, y_train), (z_test, y_test) = blobs(300), blobs(1500, seed=1)
    theirs = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    ).fit(z_train.double().numpy(), y_train.numpy())
    cosines, index = evaluate.nearest_codes(z_train, z_test, k)
    ours = evaluate.weighted_vote(cosines, y_train[index], 4, temperature)
    assert (ours.numpy() == theirs.predict(z_test.double().numpy())).all()
    accuracy = evaluate.weighted_knn_accuracy(z_train, y_train, z_test, y_test, k, temperature)
    assert accuracy == pytest.approx(theirs.score(z_test.double().numpy(), y_test.numpy()))


def test_a_near_neighbour_outvotes_two_far_ones_unless_it_is_hot():
    cosines, labels = torch.tensor([[0.9, 0.5, 0.5]]), torch.tensor([[1, 0, 0]])
    assert evaluate.weighted_vote(cosines, labels, 2, 0.1) == 1
    assert evaluate.weighted_vote(cosines, labels, 2, 10.0) == 0
    # As cold as can be: single precision would overflow at exp(0.9 / 0.001).
    assert evaluate.weighted_vote(cosines, labels, 2, 0.001) == 1


def test_neighbours_come_best_first_and_scale_does_not_matter():
    z, _ = blobs(50)
    cosines, index = evaluate.nearest_codes(z, 7 * z, 3, batch=20)
    assert (index[:, 0] == torch.arange(50)).all()
    torch.testing.assert_close(cosines[:, 0], torch.ones(50))
    assert (cosines.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("k", [0, 301])
def test_more_neighbours_than_the_bank_holds_are_refused(k):
    with pytest.raises(ValueError, match=f"k={k}: choose 1 to 300"):
        evaluate.weighted_knn_accuracy(*blobs(300), *blobs(10), k=k)


def test_a_linear_probe_finds_what_is_linear_and_nothing_else():
    z, labels = blobs(600, classes=3, dim=20)
    assert evaluate.linear_probe_accuracy(z[:400], labels[:400], z[400:], labels[400:]) > 0.9
    shuffled = labels[torch.randperm(600)]
    assert evaluate.linear_probe_accuracy(z[:400], shuffled[:400], z[400:], shuffled[400:]) < 0.5
    # Scales of single numbers do not matter: they are standardised.
    scaled = z * torch.logspace(-3, 3, 20)
    assert evaluate.linear_probe_accuracy(scaled[:400], labels[:400], scaled[400:], labels[400:]) > 0.9


def test_a_linear_probe_standardises_before_it_regularises():
    """Small numbers want large weights, which the penalty forbids: only the larger class would be named."""
    labels = (torch.arange(400) % 5 == 0).long()
    z = 1e-4 * (4 * labels[:, None] + torch.randn(400, 3))
    assert evaluate.linear_probe_accuracy(z[:200], labels[:200], z[200:], labels[200:]) > 0.95


def test_the_spectrum_is_that_of_centred_directions():
    z = 3 + torch.randn(50, 4)
    unit = (z / z.norm(dim=1, keepdim=True)).double()
    expected = np.linalg.eigvalsh(np.cov(unit.T))[::-1].copy()
    torch.testing.assert_close(evaluate.spectrum(z), torch.from_numpy(expected), atol=1e-7, rtol=1e-5)


def test_the_effective_rank_weighs_values_by_their_shares_not_by_squares():
    values = torch.tensor([2.0, 1.0, 1.0])  # entropy ½ log 2 + ½ log 4
    assert evaluate.effective_rank(values) == pytest.approx(2**1.5)


def test_the_spectrum_counts_dimensions():
    z = torch.randn(4000, 3) @ torch.linalg.qr(torch.randn(8, 3)).Q.T
    values = evaluate.spectrum(z)
    assert (values[:3] > 0.25).all() and (values[3:] < 1e-6).all()
    torch.testing.assert_close(values.sum(), torch.tensor(1.0, dtype=torch.float64), atol=0.01, rtol=0)
    assert evaluate.effective_rank(values) == pytest.approx(3, abs=0.02)
    assert evaluate.effective_rank(torch.ones(5)) == pytest.approx(5)
    assert evaluate.effective_rank(torch.tensor([2.0, 0.0, 0.0])) == pytest.approx(1)


# --- chapter 6 -------------------------------------------------------------------------------------


def test_psnr_and_ssim_are_per_image():
    x = torch.rand(4, 3, 32, 32)
    x_hat = (x + torch.tensor([0.0, 0.01, 0.1, 0.3]).view(4, 1, 1, 1) * torch.randn_like(x)).clamp(0, 1)
    found = evaluate.psnr_each(x[1:], x_hat[1:])
    torch.testing.assert_close(found, -10 * ((x - x_hat) ** 2).mean((1, 2, 3))[1:].log10())
    ssim = evaluate.ssim_each(x, x_hat)
    assert ssim.shape == (4,) and ssim[0].item() == pytest.approx(1, abs=1e-5)
    assert (ssim.diff() < 0).all()


def test_structural_similarity_is_that_of_pixels_up_to_one():
    """Of constant images: (2ab + c) / (a² + b² + c), c = 0.01² for a peak of 1 (Wang et al., 2004, equation 6)."""
    x, x_hat = torch.full((1, 1, 16, 16), 0.1), torch.full((1, 1, 16, 16), 0.2)
    expected = (2 * 0.1 * 0.2 + 1e-4) / (0.1**2 + 0.2**2 + 1e-4)
    assert evaluate.ssim_each(x, x_hat).item() == pytest.approx(expected, abs=1e-4)


def test_psnr_is_averaged_in_decibels_not_taken_of_a_pooled_error():
    """An image at 40 dB and one at 0 dB are 20 dB in the mean; their pooled error would say 3."""
    x = torch.zeros(2, 3, 32, 32)
    x_hat = torch.tensor([0.01, 1.0]).view(2, 1, 1, 1).expand_as(x)
    assert evaluate.psnr_each(x, x_hat).tolist() == pytest.approx([40, 0], abs=1e-4)


# --- what is done by default, batch by batch, and by seed ------------------------------------------


@pytest.mark.parametrize(
    ("function", "defaults"),
    [
        (evaluate.protocol_loss, {"batch": 64}),  # the reports' batches
        (evaluate.weighted_knn_accuracy, {"k": 200, "temperature": 0.1}),  # Wu et al. (2018)
        (evaluate.manifold_scores, {"k": 5}),
        (evaluate.KernelDistance, {"subsets": 50, "subset_size": 500}),
        (evaluate.linear_probe_accuracy, {"iterations": 200}),
        (evaluate.train_classifier, {"width": 16, "seed": 0}),
    ],
)
def test_protocols_have_their_numbers_by_default(function, defaults):
    found = inspect.signature(function).parameters
    assert {name: found[name].default for name in defaults} == defaults


def test_distances_take_all_images_however_many_batches_they_are():
    reference, other = images(700), images(1100, shift=0.3)
    other[1000:] = 255  # the last batch counts, too
    distance = evaluate.FrechetDistance(Reader(), reference)
    assert distance(other) == pytest.approx(frechet_by_hand(reference, other), rel=1e-3)
    reference[500:] = 0
    assert evaluate.FrechetDistance(Reader(), reference)(other) == pytest.approx(
        frechet_by_hand(reference, other), rel=1e-3
    )


def labelled(count=40, classes=3):
    return Split(images(count), torch.arange(count) % classes)


def test_a_classifier_depends_on_its_own_seed_and_on_no_other(monkeypatch):
    seen = []

    def recorded(*tensors, **options):
        seen.append(options)
        return Batches(*tensors, **options)

    monkeypatch.setattr(evaluate, "Batches", recorded)

    split = labelled()

    def trained(seed):
        classifier = evaluate.train_classifier(split, 3, epochs=2, width=2, seed=seed)
        return torch.cat([weight.flatten() for weight in classifier.parameters()])

    found = []
    for seed, before in ((4, 0), (4, 1), (5, 0)):
        torch.manual_seed(before)
        found.append(trained(seed))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert [options["seed"] for options in seen] == [4, 4, 5]
    assert {options["batch_size"] for options in seen} == {40}, "no larger than the set"


def test_a_classifier_learns_as_long_as_it_was_told_and_keeps_its_state(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(evaluate, "fit", lambda step, batches, steps, **options: called.append((steps, options)))
    split = labelled(300)
    classifier = evaluate.train_classifier(split, 3, epochs=4, width=2, checkpoint=tmp_path / "stem")
    ((steps, options),) = called
    assert steps == 4 * 3 and options["checkpoint"] == tmp_path / "stem"  # 128 + 128 + 44 images
    assert classifier.head.out_features == 3 and not classifier.training


def test_labels_below_zero_are_refused():
    with pytest.raises(ValueError, match="Labels reach 1"):
        evaluate.train_classifier(Split(images(3), torch.tensor([-1, 0, 1])), 2, epochs=1)


def test_inception_is_shown_images_as_torchvision_resizes_them():
    from torchvision.transforms.v2 import functional as V

    x = torch.rand(2, 1, 8, 8)
    seen = evaluate._InceptionInput()(x)
    expected = V.resize(x.expand(-1, 3, -1, -1), [299, 299], antialias=False)
    torch.testing.assert_close((seen + 1) / 2, expected, atol=1e-4, rtol=0)


def test_a_classifiers_features_are_its_last_hidden_layer():
    classifier = evaluate.Classifier((1, 8, 8), 3, 2).train()
    x = to_bytes(torch.rand(9, 1, 8, 8))
    features = evaluate.classifier_features(classifier, x)
    assert features.shape == (9, 64) and classifier.training
    classifier.eval()
    torch.testing.assert_close(classifier.head(features).softmax(1), evaluate.class_probabilities(classifier, x))


def test_whitened_codes_are_uncorrelated_whatever_their_scale():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(3000, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    z = z * torch.tensor([1e-3, 1, 10, 1, 1, 100]) + 5
    train, test = evaluate.whitened(z[:2000], z[2000:], 6)
    torch.testing.assert_close(train.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(train.T), torch.eye(6), atol=1e-3, rtol=0)
    # Test codes go the same way, so their covariance is near it, too: 1,000 of them.
    assert (torch.cov(test.T) - torch.eye(6)).abs().max() < 5 * (2 / 1000) ** 0.5
    # Distances are Mahalanobis', which no change of scale moves.
    again, _ = evaluate.whitened(7 * z[:2000] - 1, z[2000:], 6)
    torch.testing.assert_close(
        torch.cdist(again[:5], again[:5]), torch.cdist(train[:5], train[:5]), atol=1e-2, rtol=1e-2
    )


def test_whitened_codes_keep_the_strongest_components_and_no_empty_one():
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(500, 1, generator=generator)
    z = torch.cat([shared, shared + 0.01 * torch.randn(500, 1, generator=generator)], dim=1)
    z = torch.cat([z, torch.randn(500, 1, generator=generator), torch.ones(500, 1)], dim=1)
    train, _ = evaluate.whitened(z, z, 1)
    assert train.shape == (500, 1)
    assert torch.corrcoef(torch.stack([train[:, 0], shared[:, 0]]))[0, 1].abs() > 0.99
    train, _ = evaluate.whitened(z, z, 4)
    assert train.isfinite().all() and train[:, 3].abs().max() == 0


EDGES = [0, 0.5 / 16, 1.5 / 16, 3 / 16, 2]


def test_errors_by_frequency_add_up_to_the_mean_squared_error():
    x, x_hat = torch.rand(5, 3, 16, 16), torch.rand(5, 3, 16, 16)
    bands = evaluate.band_errors(x, x_hat, EDGES)
    assert bands.shape == (5, 4) and (bands > 0).all()
    torch.testing.assert_close(bands.sum(1), ((x - x_hat) ** 2).mean((1, 2, 3)))


@pytest.mark.parametrize(("cycles", "axis", "band"), [(0, 2, 0), (1, 2, 1), (1, 3, 1), (2, 2, 2), (5, 3, 3), (8, 2, 3)])
def test_a_wave_lies_in_the_band_of_its_cycles(cycles, axis, band):
    wave = torch.cos(2 * torch.pi * cycles * torch.arange(16.0) / 16)
    x = torch.zeros(1, 3, 16, 16)
    x_hat = x + wave.view(-1, 1) if axis == 2 else x + wave
    (found,) = evaluate.band_errors(x, x_hat, EDGES)
    expected = torch.zeros(4)
    expected[band] = (wave**2).mean()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_wave_along_the_diagonal_counts_by_its_length():
    """Two cycles along each axis are 2.83 along the diagonal; three are 4.24."""
    at = torch.arange(16.0) / 16
    for cycles, band in ((2, 2), (3, 3)):
        wave = torch.cos(2 * torch.pi * cycles * (at[:, None] + at)).expand(1, 3, 16, 16)
        (found,) = evaluate.band_errors(torch.zeros_like(wave), wave, EDGES)
        assert found.argmax() == band and found[band].item() == pytest.approx(0.5, rel=1e-4)
