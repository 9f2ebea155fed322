import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from lib import views


def photos(count, size=32, seed=0):
    """Smooth random images with saturated, grey, black and white pixels among them."""
    x = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    x = F.interpolate(x, size=size, mode="bilinear").mul(1.6).sub(0.3).clamp(0, 1)
    x[:, :, :2, :2] = 0.5
    x[:, :, :2, 2:4] = 0.0
    x[:, :, 2:4, :2] = 1.0
    return x


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("size", [None, 24, 8, 40])
def test_crops_are_torchvisions(flipped, size):
    x = photos(6)
    boxes = torch.tensor(
        [[0, 0, 32, 32], [3, 5, 20, 15], [12, 0, 20, 32], [31, 31, 1, 1], [0, 17, 32, 9], [7, 1, 2, 30]]
    )
    ours = views.crop_resize(x, boxes, torch.full((6,), flipped), size)
    for image, box, crop in zip(x, boxes.tolist(), ours, strict=True):
        theirs = V.resized_crop(image, *box, [size or 32] * 2, antialias=True)
        torch.testing.assert_close(crop, V.horizontal_flip(theirs) if flipped else theirs, atol=1e-5, rtol=0)


def test_a_view_has_the_size_that_was_asked_for():
    torch.manual_seed(0)
    assert views.Augmentation(size=24)(photos(3)).shape == (3, 3, 24, 24)
    assert views.Augmentation()(photos(3)).shape == (3, 3, 32, 32)


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (views.adjust_brightness, V.adjust_brightness, 0.0, 2.0),
        (views.adjust_contrast, V.adjust_contrast, 0.0, 2.0),
        (views.adjust_saturation, V.adjust_saturation, 0.0, 2.0),
        (views.adjust_hue, V.adjust_hue, -0.5, 0.5),
    ],
)
def test_colours_are_torchvisions_image_by_image(ours, theirs, low, high):
    x = photos(9)
    by = torch.linspace(low, high, 9)
    expected = torch.stack([theirs(image, factor.item()) for image, factor in zip(x, by, strict=True)])
    torch.testing.assert_close(ours(x, by), expected, atol=2e-5, rtol=0)


def test_grey_levels_are_torchvisions():
    x = photos(3)
    torch.testing.assert_close(views.to_grey(x), V.rgb_to_grayscale(x), atol=1e-5, rtol=0)


def test_neutral_colours_change_nothing():
    x, one = photos(4), torch.ones(4)
    for adjust in (views.adjust_brightness, views.adjust_contrast, views.adjust_saturation):
        torch.testing.assert_close(adjust(x, one), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(views.adjust_hue(x, one - 1), x, atol=1e-6, rtol=0)


def test_boxes_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    ours = views.Augmentation().boxes(4000, 32, 32, torch.device("cpu")).float()
    image = torch.empty(3, 32, 32)
    crop = v2.RandomResizedCrop(32, scale=(0.2, 1))
    theirs = [crop.make_params([image]) for _ in range(4000)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in theirs]).float()
    assert ((ours[:, :2] >= 0) & (ours[:, :2] + ours[:, 2:] <= 32)).all() and (ours[:, 2:] > 0).all()
    # Means and mean squares within 5 standard errors of a difference of two samples.
    for power in (1, 2):
        a, b = ours**power, theirs**power
        error = ((a.var(0) + b.var(0)) / 4000).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 5 * error).all()


def test_wide_and_high_crops_are_equally_likely():
    """The ratio is uniform in its logarithm, whose mean is 0; of a uniform ratio it would be 0.03."""
    torch.manual_seed(0)
    boxes = views.Augmentation(scale=(0.2, 0.5)).boxes(20_000, 1000, 1000, torch.device("cpu"))
    ratio = (boxes[:, 3] / boxes[:, 2]).log()
    assert abs(ratio.mean()) < 5 * ratio.std() / math.sqrt(20_000)
    # Uniform from −log 4/3 to log 4/3.
    assert ratio.std().item() == pytest.approx(math.log(4 / 3) / math.sqrt(3), rel=0.02)


def test_an_image_is_jittered_whatever_happens_to_its_neighbours():
    torch.manual_seed(0)
    x = torch.full((2000, 3, 2, 2), 0.5)
    view = views.Augmentation(grey=0.0, jitter=0.5).recolour(x)
    touched = ((view - x).abs() > 1e-4).flatten(1).any(1).float()
    assert touched.mean().item() == pytest.approx(0.5, abs=0.05)
    pairs = torch.corrcoef(torch.stack([touched[0::2], touched[1::2]]))[0, 1]
    assert abs(pairs) < 5 / math.sqrt(1000)


def test_an_image_too_long_for_any_crop_is_taken_whole():
    boxes = views.Augmentation(scale=(0.9, 1.0)).boxes(50, 32, 4, torch.device("cpu"))
    assert (boxes == torch.tensor([0, 0, 32, 4])).all()


def test_each_image_has_random_numbers_of_its_own():
    torch.manual_seed(0)
    x = photos(1).expand(64, -1, -1, -1)
    view = views.Augmentation()(x)
    assert view.shape == x.shape and view.min() >= 0 and view.max() <= 1
    assert len({tuple(image.flatten()[:50].tolist()) for image in view}) == 64
    whole = views.Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), jitter=0.0, flip=0.5, grey=0.2)
    x = photos(1).expand(2000, -1, -1, -1)
    view = whole(x)
    grey = (view[:, 0] == view[:, 2]).flatten(1).all(1)
    same = ((view - x).abs() < 1e-5).flatten(1).all(1)
    same_grey = ((view - views.to_grey(x)).abs() < 1e-5).flatten(1).all(1)
    # 4 standard errors of a fraction of 2,000
    assert grey.float().mean().item() == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 2000))
    assert (same | same_grey).float().mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))


def test_four_views_in_five_are_jittered_and_no_more_than_they_may():
    torch.manual_seed(0)
    x = torch.full((4000, 3, 8, 8), 0.5)  # of one grey: only brightness can change it
    view = views.Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), grey=0.0)(x)
    level = view.flatten(1).mean(1) / 0.5
    jittered = (level - 1).abs() > 1e-4
    assert jittered.float().mean().item() == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 4000))
    assert 0.6 - 1e-4 <= level.min() < 0.61 and 1.39 < level.max() <= 1.4 + 1e-4


def test_jitters_draw_each_factor_apart_within_its_own_bounds(monkeypatch):
    torch.manual_seed(0)
    drawn = {}
    for name in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(views, f"adjust_{name}", lambda x, by, name=name: drawn.update({name: by}) or x)
    views.Augmentation(jitter=1.0).recolour(torch.rand(4000, 3, 2, 2))
    for name, by in drawn.items():
        low, high = (-0.1, 0.1) if name == "hue" else (0.6, 1.4)
        # Uniform: among 4,000 draws the ends are within a hundredth of the width, but for a chance of e⁻⁴⁰.
        width = high - low
        assert low <= by.min() < low + 0.01 * width and high - 0.01 * width < by.max() <= high
        assert by.mean().item() == pytest.approx((low + high) / 2, abs=4 * width / math.sqrt(12 * 4000))
    assert len(drawn) == 4
    correlations = torch.corrcoef(torch.stack(list(drawn.values()))) - torch.eye(4)
    assert correlations.abs().max() < 5 / math.sqrt(4000)


def test_jitters_come_in_every_order(monkeypatch):
    torch.manual_seed(0)
    orders = []
    for name in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(views, f"adjust_{name}", lambda x, by, name=name: orders[-1].append(name) or x)
    for _ in range(400):
        orders.append([])
        views.Augmentation().recolour(torch.rand(1, 3, 2, 2))
    # One of 24 orders is missed in 400 draws by chance once in a million runs.
    assert len({tuple(order) for order in orders}) == 24 and {len(order) for order in orders} == {4}


def test_views_are_those_of_simsiam_by_default():
    augment = views.Augmentation()
    assert (augment.scale, augment.ratio) == ((0.2, 1.0), (3 / 4, 4 / 3))
    assert (augment.flip, augment.jitter, augment.grey, augment.strength, augment.hue) == (0.5, 0.8, 0.2, 0.4, 0.1)


def test_no_crop_is_empty():
    boxes = views.Augmentation(scale=(1e-6, 1e-5)).boxes(100, 8, 8, torch.device("cpu"))
    assert (boxes == torch.tensor([0, 0, 8, 8])).all(), "less than half a pixel: the whole image instead"
    boxes = views.Augmentation(scale=(1e-6, 0.05)).boxes(2000, 8, 8, torch.device("cpu"))
    assert boxes[:, 2:].min() == 1


def test_crops_are_of_the_area_and_place_asked_for():
    torch.manual_seed(0)
    boxes = views.Augmentation(scale=(0.25, 0.25), ratio=(1.0, 1.0)).boxes(3000, 8, 16, torch.device("cpu"))
    top, left, height, width = boxes.unbind(1)
    assert set(height.tolist()) == set(width.tolist()) == {6}  # √(0.25 · 128), rounded
    assert set(top.tolist()) == {0, 1, 2} and set(left.tolist()) == set(range(11))
    # Each of three tops in a third of 3,000 draws, within five standard errors.
    assert (torch.bincount(top) / 3000 - 1 / 3).abs().max() < 5 * math.sqrt(2 / 9 / 3000)


def test_a_ratio_is_width_over_height():
    boxes = views.Augmentation(scale=(0.1, 0.1), ratio=(4.0, 4.0)).boxes(5, 100, 100, torch.device("cpu"))
    assert boxes[:, 2:].tolist() == [[16, 63]] * 5


def test_factors_are_never_negative():
    torch.manual_seed(0)
    x = torch.full((500, 3, 2, 2), 0.5)
    view = views.Augmentation(strength=3.0, jitter=1.0, grey=0.0, hue=0.0).recolour(x)
    assert view.min() >= 0 and view.isfinite().all()
    assert not (view == 0).all((1, 2, 3)).any(), "a negative brightness would be black"


def test_views_keep_their_precision_where_networks_run_in_less():
    x, boxes = photos(4), torch.tensor([[3, 5, 20, 15]] * 4)
    flipped = torch.tensor([True, False, True, False])
    expected = views.crop_resize(x, boxes, flipped)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(views.crop_resize(x, boxes, flipped), expected)


def test_a_view_is_cropped_flipped_and_recoloured_by_its_probabilities():
    torch.manual_seed(0)
    x = photos(1).expand(6, -1, -1, -1)
    plain = views.Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0, jitter=0.0, grey=0.0)
    torch.testing.assert_close(plain(x), x.flip(3), atol=1e-5, rtol=0)
    grey = views.Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grey=1.0)
    torch.testing.assert_close(grey(x), views.to_grey(x).expand_as(x), atol=1e-5, rtol=0)
