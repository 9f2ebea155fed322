"""Scores that do not know how anything was trained: errors, and distances between sets
of images.

Inception weights cannot be had everywhere, and see digits poorly. So the Fréchet
distance here is taken in the features of a small classifier trained on the real set:
*FD-classifier*. Its scale is its own; it is always printed beside the floor, the
distance of real test images, equally many, from the same reference.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from lib.checkpoint import Checkpoint
from lib.data import Split, to_bytes, to_unit
from lib.nets import Classifier
from lib.optim import adam_one_cycle
from lib.train import Batches, evaluating, fit


def in_batches(module: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """``module`` over images, uint8 or [0, 1] pixels (N, C, H, W), in evaluation mode,
    without gradients.
    """
    with evaluating(module):
        return torch.cat(
            [
                module(to_unit(part) if part.dtype == torch.uint8 else part)
                for part in images.split(batch)
            ]
        )


def mse(x: Tensor, x_hat: Tensor) -> float:
    """Mean squared error per pixel, pixels in [0, 1]."""
    return F.mse_loss(x_hat, x).item()


def protocol_loss(x: Tensor, x_hat: Tensor, batch: int = 64) -> float:
    """‖x − x_hat‖₂ / numel(x) of a whole batch, pixels 0–255; the mean over batches.

    The loss of reports 001 and 003. It falls as 1/√batch, so it can be compared at one
    batch size only; 64 is theirs.
    """
    errors = (255 * (x_hat - x)).split(batch)
    return float(np.mean([error.norm().item() / error.numel() for error in errors]))


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB for pixels in [0, 1]: −10 log10(mse)."""
    return -10 * math.log10(mse)


def psnr_each(x: Tensor, x_hat: Tensor) -> Tensor:
    """PSNR of each image in dB, pixels in [0, 1], (B, C, H, W) -> (B,)."""
    return peak_signal_noise_ratio(
        x_hat, x, data_range=1.0, dim=(1, 2, 3), reduction="none"
    )


def ssim_each(x: Tensor, x_hat: Tensor) -> Tensor:
    """Structural similarity of each image, 1 where equal, pixels in [0, 1],
    (B, C, H, W) -> (B,).

    Wang et al. (2004), with its Gaussian window of 11 pixels and σ = 1.5.
    """
    # Channels last: the window is one convolution for each channel, three times as fast
    # on a CPU in that order.
    x_hat, x = (
        images.contiguous(memory_format=torch.channels_last) for images in (x_hat, x)
    )
    return structural_similarity_index_measure(
        x_hat, x, data_range=1.0, reduction="none"
    )


def band_errors(x: Tensor, x_hat: Tensor, edges: Sequence[float]) -> Tensor:
    """The mean squared error of each image, split by spatial frequency,
    (B, C, H, W) -> (B, bands).

    Band k holds the frequencies f = (f_y² + f_x²)^½ with edges[k] ≤ f < edges[k + 1],
    in cycles per pixel; 0 is the mean, ½ the finest grid along an axis. By Parseval's
    theorem bands that cover all frequencies add up to the mean squared error.
    """
    error = (x_hat - x).float()
    size = error.shape[-2] * error.shape[-1]
    power = torch.fft.fft2(error).abs().square().mean(1) / size**2  # (B, H, W)
    frequencies = [
        torch.fft.fftfreq(side, device=x.device) for side in error.shape[-2:]
    ]
    f = torch.hypot(frequencies[0][:, None], frequencies[1][None])
    bands = torch.bucketize(f, torch.tensor(edges, device=x.device), right=True) - 1
    inside = [(bands == k).float() for k in range(len(edges) - 1)]
    return torch.stack([(power * mask).sum((1, 2)) for mask in inside], dim=1)


def pca_mse(train: Tensor, test: Tensor, dim: int) -> float:
    """Per-pixel test error of the best *linear* code of ``dim`` numbers: PCA, fitted on
    ``train`` (uint8).
    """
    from sklearn.decomposition import PCA

    x_train, x_test = (
        to_unit(images).flatten(1).cpu().numpy() for images in (train, test)
    )
    pca = PCA(dim, random_state=0).fit(x_train)
    return float(np.mean((pca.inverse_transform(pca.transform(x_test)) - x_test) ** 2))


def knn_accuracy(
    z_train: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor, k: int
) -> float:
    """The fraction of codes (N, D) whose ``k`` nearest training codes name their class,
    by majority.
    """
    from sklearn.neighbors import KNeighborsClassifier

    neighbours = KNeighborsClassifier(k).fit(
        z_train.cpu().numpy(), y_train.cpu().numpy()
    )
    return float(neighbours.score(z_test.cpu().numpy(), y_test.cpu().numpy()))


def nearest_codes(
    z_train: Tensor, z_test: Tensor, k: int, batch: int = 1000
) -> tuple[Tensor, Tensor]:
    """Cosines and indices, (N, k) each, of the ``k`` training codes most alike to each
    test code, best first.

    Raises ValueError for a k that is not from 1 to the number of training codes, the
    bank.
    """
    if not 1 <= k <= len(z_train):
        raise ValueError(
            f"k={k}: choose 1 to {len(z_train)}, the number of codes in the bank."
        )
    bank = F.normalize(z_train.float(), dim=1)
    found = [
        (F.normalize(part.float(), dim=1) @ bank.T).topk(k, dim=1)
        for part in z_test.split(batch)
    ]
    return torch.cat([part.values for part in found]), torch.cat(
        [part.indices for part in found]
    )


def weighted_vote(
    cosines: Tensor, labels: Tensor, classes: int, temperature: float
) -> Tensor:
    """The class (N,) with most votes among neighbours (N, k), each of weight exp(cosine
    / temperature).

    Wu et al. (2018), section 3.4: the protocol of most self-supervised work, with k =
    200 and temperature 0.1.
    """
    weights = (
        (cosines - cosines[:, :1]) / temperature
    ).exp()  # relative to the nearest: nothing overflows
    votes = torch.zeros(len(labels), classes, device=labels.device)
    return votes.scatter_add_(1, labels, weights).argmax(1)


def weighted_knn_accuracy(
    z_train: Tensor,
    y_train: Tensor,
    z_test: Tensor,
    y_test: Tensor,
    k: int = 200,
    temperature: float = 0.1,
) -> float:
    """The fraction of test codes (N, D) whose ``k`` most similar training codes name
    their class, by weighted vote.
    """
    cosines, index = nearest_codes(z_train, z_test, k)
    classes = int(y_train.max()) + 1
    return (
        (weighted_vote(cosines, y_train[index], classes, temperature) == y_test)
        .float()
        .mean()
        .item()
    )


def whitened(z_train: Tensor, z_test: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Codes (N, D) and (M, D) by the training codes' ``dim`` strongest principal
    components, or D if that is less, each with mean 0 and variance 1 over these.

    Numbers are standardised first, and one that does not vary is left at 0. Components
    without variance stay 0, too.
    """
    mean, std = z_train.mean(0), z_train.std(0)
    scale = torch.where(std > 0, 1 / std, 0.0)
    z_train, z_test = ((z - mean) * scale for z in (z_train, z_test))
    values, vectors = torch.linalg.eigh(z_train.T @ z_train / (len(z_train) - 1))
    values, vectors = values[-dim:].flip(0), vectors[:, -dim:].flip(1)
    small = values <= 1e-6 * values[0]
    vectors = vectors * torch.where(small, 0.0, values.clamp(min=1e-30).rsqrt())
    return z_train @ vectors, z_test @ vectors


def linear_probe_accuracy(
    z_train: Tensor,
    y_train: Tensor,
    z_test: Tensor,
    y_test: Tensor,
    iterations: int = 200,
) -> float:
    """The share of test codes (N, D) that logistic regression classifies correctly, on
    standardised training codes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # its last percent is not worth twice the time
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=iterations, tol=1e-3)
        )
        probe.fit(z_train.float().cpu().numpy(), y_train.cpu().numpy())
    return float(probe.score(z_test.float().cpu().numpy(), y_test.cpu().numpy()))


def spectrum(z: Tensor) -> Tensor:
    """Singular values (D,) of the covariance of codes (N, D) after ℓ2-normalisation,
    largest first.

    Jing et al. (2022): where some are zero, the codes fill fewer dimensions than they
    have.
    """
    unit = F.normalize(z.double(), dim=1)
    return torch.linalg.svdvals(torch.cov(unit.T))


def effective_rank(singular_values: Tensor) -> float:
    """exp of the entropy of singular values taken as shares (Roy and Vetterli, 2007):
    how many dimensions count.
    """
    shares = singular_values / singular_values.sum()
    return float(torch.special.entr(shares).sum().exp())


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error over repeated runs; None for the error of a single
    run.
    """
    mean = float(np.mean(values))
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(
        values
    ) > 1 else None


# --- the classifier whose features measure distance -----------------------------------


def train_classifier(
    train: Split,
    classes: int,
    epochs: int,
    width: int = 16,
    seed: int = 0,
    checkpoint: Checkpoint | Path | None = None,
) -> Classifier:
    """A :class:`~lib.nets.Classifier` trained by cross-entropy with Adam and a
    one-cycle schedule.

    Raises ValueError for labels outside 0 … classes − 1.
    """
    if int(train.labels.min()) < 0 or int(train.labels.max()) >= classes:
        raise ValueError(
            f"Labels reach {int(train.labels.max())}, but classes={classes}."
        )
    torch.manual_seed(seed)
    classifier = Classifier(tuple(train.images.shape[1:]), classes, width).to(
        train.images.device
    )
    batches = Batches(
        train.images, train.labels, batch_size=min(128, len(train)), seed=seed
    )
    steps = epochs * len(batches)

    def loss_fn(x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(classifier(x), labels)}

    fit(
        adam_one_cycle(classifier, loss_fn, steps, 3e-3),
        batches,
        steps,
        checkpoint=checkpoint,
        label="classifier",
    )
    return classifier.eval()


def class_probabilities(classifier: Classifier, images: Tensor) -> Tensor:
    """Class probabilities (N, classes) of uint8 or [0, 1] images."""
    return in_batches(classifier, images).softmax(1)


def accuracy(classifier: Classifier, split: Split) -> float:
    """The fraction of a split that the classifier classifies correctly."""
    return (
        (in_batches(classifier, split.images).argmax(1) == split.labels)
        .float()
        .mean()
        .item()
    )


class _ByteFeatures(nn.Module):
    """A classifier's features of uint8 images, as torchmetrics asks for them."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier.eval()
        self.num_features = classifier.head.in_features

    def forward(self, images: Tensor) -> Tensor:
        with evaluating(self.classifier):
            return self.classifier.features(to_unit(images))


class _Distance:
    """A torchmetrics distance of image sets from one reference set, in batches."""

    def __init__(self, metric: Metric, reference: Tensor) -> None:
        self._metric = metric.to(reference.device)
        self._update(reference, real=True)

    def _measure(self, images: Tensor) -> Any:
        """What the metric says of images (N, C, H, W); [0, 1] is rounded to 8 bits."""
        images = images if images.dtype == torch.uint8 else to_bytes(images)
        self._update(images, real=False)
        found = self._metric.compute()
        self._metric.reset()
        return found

    def _update(self, images: Tensor, real: bool) -> None:
        for part in images.split(500):
            self._metric.update(part, real=real)


class FrechetDistance(_Distance):
    """Distance of image sets from one reference set in a classifier's features.

    Heusel et al. (2017), equation 6, with the classifier's last hidden layer in
    Inception's place (FD-classifier): ‖m − m_r‖² + tr(S + S_r − 2 (S S_r)^½) for means
    m and covariances S of the features. It shrinks with the sample count, so compare
    numbers of one count only, and the floor of that count.
    """

    def __init__(self, classifier: Classifier, reference: Tensor) -> None:
        features = _ByteFeatures(classifier)
        super().__init__(
            FrechetInceptionDistance(features, reset_real_features=False), reference
        )

    def __call__(self, images: Tensor) -> float:
        """The distance of images, uint8 or [0, 1] pixels (N, C, H, W)."""
        return self._measure(images).item()


class KernelDistance(_Distance):
    """Squared kernel distance (KID) of image sets in a classifier's features.

    Bińkowski et al. (2018): the unbiased estimate of the squared maximum mean
    discrepancy under the kernel (a·b / d + 1)³, d the number of features, averaged over
    random subsets. Unlike the Fréchet distance its expectation does not depend on the
    sample count, so that real images score 0 on average.
    """

    def __init__(
        self,
        classifier: Classifier,
        reference: Tensor,
        subsets: int = 50,
        subset_size: int = 500,
    ) -> None:
        features = _ByteFeatures(classifier)
        with warnings.catch_warnings():
            # It warns of the memory that features take; here they are 64 numbers.
            warnings.simplefilter("ignore", UserWarning)
            metric = KernelInceptionDistance(
                features, subsets, subset_size, reset_real_features=False
            )
        super().__init__(metric, reference)

    def __call__(self, images: Tensor) -> tuple[float, float]:
        """Mean and standard deviation over subsets, for images as in
        :class:`FrechetDistance`.
        """
        mean, deviation = self._measure(images)
        return mean.item(), deviation.item()


def classifier_features(classifier: Classifier, images: Tensor) -> Tensor:
    """The classifier's last hidden layer (N, F) of uint8 or [0, 1] images."""
    return in_batches(classifier.features, images)


def manifold_scores(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage of made examples from features real
    (N, F) and fake (M, F).

    A ball around each example reaches to its k-th nearest neighbour in its own set.
    *Precision*: the share of fakes in some real example's ball; *recall*: of real
    examples in some fake's ball (Kynkäänniemi et al., 2019, equations 1 and 2).
    *Density*: how many real balls hold a fake, on average, divided by k, which may
    exceed 1; *coverage*: the share of real balls that hold a fake (Naeem et al., 2020,
    equations 3 and 4).

    All four depend on the counts and on k: compare equal ones. Raises ValueError for
    sets not larger than k.
    """
    if not 1 <= k < min(len(real), len(fake)):
        raise ValueError(
            f"k={k}: choose 1 to {min(len(real), len(fake)) - 1}, below the size of "
            "the smaller set."
        )

    def radii(features: Tensor) -> Tensor:
        # The nearest of all is the example itself, at distance 0.
        return torch.cdist(features, features).kthvalue(k + 1, dim=1).values

    distances = torch.cdist(real, fake)
    in_real, in_fake = distances <= radii(real)[:, None], distances <= radii(fake)[None]
    return {
        "precision": in_real.any(0).float().mean().item(),
        "recall": in_fake.any(1).float().mean().item(),
        "density": in_real.float().sum(0).mean().item() / k,
        "coverage": in_real.any(1).float().mean().item(),
    }


def nearest(images: Tensor, bank: Tensor, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Distances (N,) and indices (N,) of the nearest images of ``bank``, per pixel: the
    root mean squared difference.

    Images are uint8 or [0, 1] pixels (N, C, H, W) with one shape of image.
    """

    def flat(part: Tensor) -> Tensor:
        return (to_unit(part) if part.dtype == torch.uint8 else part).flatten(1)

    queries, best, index = flat(images), [], []
    for start in range(0, len(bank), batch):
        found = torch.cdist(queries, flat(bank[start : start + batch])).min(1)
        best.append(found.values)
        index.append(found.indices + start)
    values, chosen = torch.stack(best).min(0)
    return values / queries.shape[1] ** 0.5, torch.stack(index).gather(0, chosen[None])[
        0
    ]


class Inception(nn.Module):
    """torchvision's Inception v3 in a classifier's place, for an Inception-FID where
    its weights are on disk.

    ``weights``: the file that torchvision calls inception_v3_google-0cc3c7bd.pth. These
    are not the weights of Heusel et al. (2017), so the distance is near a published FID
    but not the same.

    Raises FileNotFoundError, with the remedy, if the file is not there: nothing is
    downloaded.
    """

    def __init__(self, weights: str | Path) -> None:
        super().__init__()
        path = Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file. For an Inception-FID, put torchvision's "
                "inception_v3_google-0cc3c7bd.pth "
                "there; without it, use FD-classifier."
            )
        from torchvision.models import inception_v3

        network = inception_v3(weights=None, init_weights=False)
        network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        self.head, network.fc = network.fc, nn.Identity()
        self.features = nn.Sequential(_InceptionInput(), network)


class _InceptionInput(nn.Module):
    """Pixels in [0, 1] (B, C, H, W) as Inception wants them: in colour, 299×299, in
    [−1, 1].
    """

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(
            x.expand(-1, 3, -1, -1),
            size=(299, 299),
            mode="bilinear",
            align_corners=False,
        )
        return 2 * x - 1
