import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lib.linear_gaussian import LinearGaussian


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def linear_model(dim: int = 4, pixels: int = 12) -> LinearGaussian:
    weight = torch.randn(pixels, dim, dtype=torch.float64)
    return LinearGaussian(torch.randn(pixels, dtype=torch.float64), weight, sigma=0.7)


def test_linear_gaussian_is_the_probabilistic_pca_of_scikit_learn():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 10)) + 0.3 * rng.normal(size=(300, 10))
    pca = PCA(3).fit(data)
    model = LinearGaussian.from_pca(pca)
    x = torch.tensor(data[:20])
    np.testing.assert_allclose(model.marginal().log_prob(x), pca.score_samples(data[:20]), rtol=1e-9)


def test_turning_the_latent_axes_changes_the_mean_field_gap_and_nothing_else():
    rng = np.random.default_rng(0)
    pca = PCA(3).fit(rng.normal(size=(200, 8)) * np.arange(1, 9))
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    straight, turned = LinearGaussian.from_pca(pca), LinearGaussian.from_pca(pca, turn)
    x = torch.randn(5, 8, dtype=torch.float64)
    torch.testing.assert_close(straight.marginal().log_prob(x), turned.marginal().log_prob(x))
    assert straight.mean_field_gap().abs() < 1e-9
    assert turned.mean_field_gap() > 0.01


def test_linear_gaussian_samples_follow_its_marginal():
    model = linear_model(dim=2, pixels=3)
    _, x = model.sample(200_000)
    covariance = model.weight @ model.weight.T + 0.7**2 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0.03, atol=0.03)
    torch.testing.assert_close(x.mean(0), model.mean, rtol=0, atol=0.03)


def test_a_linear_model_of_wrong_sizes_is_refused():
    with pytest.raises(ValueError, match="wanted"):
        LinearGaussian(torch.zeros(3), torch.zeros(4, 2), 1.0)
    with pytest.raises(ValueError, match="sigma"):
        LinearGaussian(torch.zeros(4), torch.zeros(4, 2), 0.0)
