import pytest
import torch
import torch.nn.functional as F

from lib import patches


def images(count=5, side=16, seed=0):
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_patches_are_cut_out_of_images_with_channels_and_pixels_in_place():
    torch.manual_seed(0)
    pictures = images()
    drawn = (255 * patches.draw(pictures, 40, 6)).round().byte()
    assert drawn.shape == (40, 3, 6, 6)
    windows = pictures.unfold(2, 6, 1).unfold(3, 6, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * 6 * 6)
    for patch in drawn:
        assert (windows == patch.flatten()).all(1).any()


def test_every_place_and_image_is_drawn():
    torch.manual_seed(0)
    pictures = torch.arange(3 * 4 * 4).view(3, 1, 4, 4).byte().expand(-1, 3, -1, -1)
    corners = (255 * patches.draw(pictures, 2000, 3))[:, 0, 0, 0].round().long()
    expected = [16 * i + 4 * row + column for i in range(3) for row in range(2) for column in range(2)]
    counts = corners.bincount(minlength=48)[expected]
    assert counts.sum() == 2000
    # 12 places, 167 each: within 5 binomial standard errors
    assert (counts - 2000 / 12).abs().max() < 5 * (2000 / 12 * 11 / 12) ** 0.5


def test_normalised_patches_have_mean_zero_and_unit_spread_unless_they_are_flat():
    x = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = patches.normalise(x)
    flat = x.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    expected = centred / (flat.var(1, correction=0, keepdim=True) + patches.EPSILON).sqrt()
    torch.testing.assert_close(found, expected)
    # Noise of one grey level on a grey patch stays small: it is no texture.
    noise = 0.5 + torch.randn(50, 108, generator=torch.Generator().manual_seed(1)) / 255
    assert patches.normalise(noise).std(1).mean() < 0.35


def test_whitened_patches_are_uncorrelated_and_stay_where_they_were():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator)
    x = 2 + torch.randn(20_000, 12, generator=generator) @ mixing
    whitening = patches.Whitening.fit(x, ridge=1e-6)
    torch.testing.assert_close(torch.cov(whitening(x).T), torch.eye(12), atol=0.01, rtol=0)
    torch.testing.assert_close(whitening.matrix, whitening.matrix.T)
    # ZCA: of all whitenings the one nearest to the data, so its matrix is positive definite.
    assert torch.linalg.eigvalsh(whitening.matrix.double()).min() > 0
    # With a ridge a direction of variance v keeps v / (v + ridge).
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    kept = torch.cov(patches.Whitening.fit(x, ridge=3.0)(x).T)
    found = (vectors.T @ kept @ vectors).diagonal()
    torch.testing.assert_close(found, values / (values + 3.0), atol=1e-3, rtol=1e-3)


def test_the_triangle_keeps_what_is_nearer_than_average():
    x, centres = torch.randn(30, 7), torch.randn(5, 7)
    z = torch.cdist(x, centres)
    expected = (z.mean(1, keepdim=True) - z).clamp(min=0)
    torch.testing.assert_close(patches.triangle(x, centres), expected, atol=1e-4, rtol=1e-4)
    # A patch that is a centre itself is nearest to it.
    assert (patches.triangle(centres, centres).argmax(1) == torch.arange(5)).all()


def test_products_in_bfloat16_change_little():
    x, centres = torch.randn(300, 108), torch.randn(20, 108)
    exact = patches.triangle(x, centres)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = patches.triangle(x, centres)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.05 * exact.max()


def test_features_are_the_triangles_mean_in_each_quadrant():
    torch.manual_seed(0)
    pictures = images(3, side=9)
    net = patches.learn(pictures, 4, size=4, patches=200)
    x = pictures.float() / 255
    found = net(x)
    assert found.shape == (3, 16)
    whitening = patches.Whitening(net.mean, net.matrix)
    for i in range(3):
        for q, (rows, columns) in enumerate([(a, b) for a in (range(3), range(3, 6)) for b in (range(3), range(3, 6))]):
            windows = torch.stack([x[i, :, r : r + 4, c : c + 4] for r in rows for c in columns])
            near = patches.triangle(whitening(patches.normalise(windows)), net.centres)
            torch.testing.assert_close(found[i, 4 * q : 4 * q + 4], near.mean(0), atol=1e-4, rtol=1e-4)
    # However many images come at once.
    torch.testing.assert_close(net(x[:1]), found[:1])


def test_k_means_centres_lie_nearer_to_patches_than_patches_drawn_at_random():
    torch.manual_seed(0)
    pictures = F.interpolate(torch.rand(60, 3, 4, 4), size=16, mode="bilinear").mul(255).byte()
    found = {}
    for clustered in (True, False):
        torch.manual_seed(1)
        net = patches.learn(pictures, 12, size=6, patches=3000, clustered=clustered)
        x = patches.Whitening(net.mean, net.matrix)(patches.normalise(patches.draw(pictures, 1000, 6)))
        found[clustered] = torch.cdist(x, net.centres).min(1).values.square().mean()
    assert found[True] < found[False]


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(ValueError, match="size=17: patches of images of 16×16 pixels have a side of 1 to 16"):
        patches.draw(images(), 3, 17)
    with pytest.raises(ValueError, match="count=9: choose 1 to 8, the number of patches"):
        patches.cluster(torch.randn(8, 4), 9)
