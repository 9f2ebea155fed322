"""Scores that do not know how anything was trained: errors, and distances between sets of images.

Inception weights cannot be had everywhere, and see digits poorly. So the Fréchet distance here is taken
in the features of a small classifier trained on the real set: *FD-classifier*. Its scale is its own; it is
always printed beside the floor, the distance of real test images, equally many, from the same reference.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from lib.data import Split, to_bytes, to_unit
from lib.nets import Classifier
from lib.train import Batches, adam_one_cycle, evaluating, fit


def in_batches(module: nn.Module, images: Tensor, batch: int = 500) -> Tensor:
    """``module`` over images, uint8 or [0, 1] pixels (N, C, H, W), in evaluation mode, without gradients."""
    with evaluating(module):
        return torch.cat([module(to_unit(part) if part.dtype == torch.uint8 else part) for part in images.split(batch)])


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


def pca_mse(train: Tensor, test: Tensor, dim: int) -> float:
    """Per-pixel test error of the best *linear* code of ``dim`` numbers: PCA, fitted on ``train`` (uint8)."""
    from sklearn.decomposition import PCA

    x_train, x_test = (to_unit(images).flatten(1).cpu().numpy() for images in (train, test))
    pca = PCA(dim, random_state=0).fit(x_train)
    return float(np.mean((pca.inverse_transform(pca.transform(x_test)) - x_test) ** 2))


def knn_accuracy(z_train: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor, k: int) -> float:
    """The fraction of codes (N, D) whose ``k`` nearest training codes name their class, by majority."""
    from sklearn.neighbors import KNeighborsClassifier

    neighbours = KNeighborsClassifier(k).fit(z_train.cpu().numpy(), y_train.cpu().numpy())
    return float(neighbours.score(z_test.cpu().numpy(), y_test.cpu().numpy()))


def nearest(z_train: Tensor, z_test: Tensor, k: int, batch: int = 1000) -> tuple[Tensor, Tensor]:
    """Cosines and indices, (N, k) each, of the ``k`` training codes most alike to each test code, best first.

    Raises ValueError for a k that is not from 1 to the number of training codes, the bank.
    """
    if not 1 <= k <= len(z_train):
        raise ValueError(f"k={k}: choose 1 to {len(z_train)}, the number of codes in the bank.")
    bank = F.normalize(z_train.float(), dim=1)
    found = [(F.normalize(part.float(), dim=1) @ bank.T).topk(k, dim=1) for part in z_test.split(batch)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def weighted_vote(cosines: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    """The class (N,) with most votes among neighbours (N, k), each of weight exp(cosine / temperature).

    Wu et al. (2018), section 3.4: the protocol of most self-supervised work, with k = 200 and temperature 0.1.
    """
    weights = ((cosines - cosines[:, :1]) / temperature).exp()  # relative to the nearest: nothing overflows
    votes = torch.zeros(len(labels), classes, device=labels.device)
    return votes.scatter_add_(1, labels, weights).argmax(1)


def weighted_knn_accuracy(
    z_train: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor, k: int = 200, temperature: float = 0.1
) -> float:
    """The fraction of test codes (N, D) whose ``k`` most similar training codes name their class, by weighted vote."""
    cosines, index = nearest(z_train, z_test, k)
    classes = int(y_train.max()) + 1
    return (weighted_vote(cosines, y_train[index], classes, temperature) == y_test).float().mean().item()


def linear_probe_accuracy(
    z_train: Tensor, y_train: Tensor, z_test: Tensor, y_test: Tensor, iterations: int = 200
) -> float:
    """The fraction of test codes (N, D) named rightly by logistic regression on standardised training codes."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its last percent is not worth twice the time
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=iterations, tol=1e-3))
        probe.fit(z_train.float().cpu().numpy(), y_train.cpu().numpy())
    return float(probe.score(z_test.float().cpu().numpy(), y_test.cpu().numpy()))


def spectrum(z: Tensor) -> Tensor:
    """Singular values (D,) of the covariance of codes (N, D) after ℓ2-normalisation, largest first.

    Jing et al. (2022): where some are zero, the codes fill fewer dimensions than they have.
    """
    unit = F.normalize(z.double(), dim=1)
    return torch.linalg.svdvals(torch.cov(unit.T))


def effective_rank(singular_values: Tensor) -> float:
    """exp of the entropy of singular values taken as shares (Roy and Vetterli, 2007): how many dimensions count."""
    shares = singular_values / singular_values.sum()
    return float(torch.special.entr(shares).sum().exp())


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error over repeated runs; None for the error of a single run."""
    mean = float(np.mean(values))
    return mean, float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


# --- the classifier whose features measure distance ------------------------------------------------


def train_classifier(
    train: Split, classes: int, epochs: int, width: int = 16, seed: int = 0, checkpoint: Path | None = None
) -> Classifier:
    """A :class:`~lib.nets.Classifier` trained by cross-entropy with Adam and a one-cycle schedule.

    Raises ValueError for labels outside 0 … classes − 1.
    """
    if int(train.labels.min()) < 0 or int(train.labels.max()) >= classes:
        raise ValueError(f"Labels reach {int(train.labels.max())}, but classes={classes}.")
    torch.manual_seed(seed)
    classifier = Classifier(tuple(train.images.shape[1:]), classes, width).to(train.images.device)
    batches = Batches(train.images, train.labels, batch_size=min(128, len(train)), seed=seed)
    steps = epochs * len(batches)

    def loss_fn(x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(classifier(x), labels)}

    fit(adam_one_cycle(classifier, loss_fn, steps, 3e-3), batches, steps, checkpoint=checkpoint, label="classifier")
    return classifier.eval()


def class_probabilities(classifier: Classifier, images: Tensor) -> Tensor:
    """Class probabilities (N, classes) of uint8 or [0, 1] images."""
    return in_batches(classifier, images).softmax(1)


def accuracy(classifier: Classifier, split: Split) -> float:
    """The fraction of a split that the classifier names rightly."""
    return (in_batches(classifier, split.images).argmax(1) == split.labels).float().mean().item()


class FrechetDistance:
    """Distance of image sets from one reference set in a classifier's features (FD-classifier).

    Heusel et al. (2017), equation 6, with the classifier's last hidden layer in Inception's place:
    ‖m − m_r‖² + tr(S + S_r − 2 (S S_r)^½) for means m and covariances S of the features. It shrinks with
    the sample count, so compare numbers of one count only, and the floor of that count.
    """

    def __init__(self, classifier: Classifier, reference: Tensor) -> None:
        features = _ByteFeatures(classifier)
        self._metric = FrechetInceptionDistance(feature=features, reset_real_features=False)
        self._metric.to(reference.device)
        self._update(reference, real=True)

    def __call__(self, images: Tensor) -> float:
        """The distance of images, uint8 or [0, 1] pixels (N, C, H, W); [0, 1] is rounded to 8 bits first."""
        self._update(images if images.dtype == torch.uint8 else to_bytes(images), real=False)
        distance = self._metric.compute().item()
        self._metric.reset()
        return distance

    def _update(self, images: Tensor, real: bool) -> None:
        for part in images.split(500):
            self._metric.update(part, real=real)


class _ByteFeatures(nn.Module):
    """A classifier's features of uint8 images, as torchmetrics asks for them."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier.eval()
        self.num_features = classifier.head.in_features

    def forward(self, images: Tensor) -> Tensor:
        with evaluating(self.classifier):
            return self.classifier.features(to_unit(images))
