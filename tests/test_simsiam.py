import math

import pytest
import torch
import torch.nn.functional as F
from chapter_cells import code_cells, read, tiny
from torch import nn

from lib import nets, simsiam, views
from lib.report.parameters import ParameterError
from lib.train import Batches, GradientStep, fit


def photos(count, size=32, seed=0):
    """Smooth random images with saturated, grey, black and white pixels among them."""
    x = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    x = F.interpolate(x, size=size, mode="bilinear").mul(1.6).sub(0.3).clamp(0, 1)
    x[:, :, :2, :2] = 0.5
    x[:, :, :2, 2:4] = 0.0
    x[:, :, 2:4, :2] = 1.0
    return x


# --- the objective ---------------------------------------------------------------------------------


def test_the_loss_is_minus_one_where_prediction_and_target_agree():
    p = torch.randn(7, 5)
    torch.testing.assert_close(simsiam.negative_cosine(p, p), -torch.ones(7))
    torch.testing.assert_close(simsiam.negative_cosine(p, -3 * p), torch.ones(7))
    torch.testing.assert_close(simsiam.negative_cosine(torch.eye(3)[:1], torch.eye(3)[1:2]), torch.zeros(1))


def test_the_loss_is_the_inner_product_of_normalised_vectors_per_example():
    p, z = torch.randn(7, 5), torch.randn(7, 5)
    expected = -(p / p.norm(dim=1, keepdim=True) * z / z.norm(dim=1, keepdim=True)).sum(1)
    torch.testing.assert_close(simsiam.negative_cosine(p, z), expected)


def test_no_gradient_passes_the_target_branch():
    p, z = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6, requires_grad=True)
    simsiam.negative_cosine(p, z).sum().backward()
    assert z.grad is None
    assert p.grad.norm() > 0
    simsiam.negative_cosine(p, z, stop_gradient=False).sum().backward()
    assert z.grad.norm() > 0


def small(variant="full", seed=0):
    torch.manual_seed(seed)
    options = simsiam.VARIANTS[variant]
    return simsiam.build(nets.small_resnet(3, 4, [1, 1]), 8, dim=16, hidden=4, **options)


def gradient(loss, model):
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])


def test_the_whole_models_gradient_is_that_of_constant_targets():
    model, x1, x2 = small().double(), photos(8).double(), photos(8, seed=1).double()
    model.eval()  # so that a second pass leaves no traces in batch norm
    with torch.no_grad():
        constant1, constant2 = model(x1)[0], model(x2)[0]
    (_, p1), (_, p2) = model(x1), model(x2)
    by_hand = -(F.cosine_similarity(p1, constant2) + F.cosine_similarity(p2, constant1)).mean() / 2
    loss = model.loss(x1, x2)["loss"]
    torch.testing.assert_close(loss, by_hand)
    torch.testing.assert_close(gradient(loss, model), gradient(by_hand, model))


def test_without_a_predictor_stopping_the_gradient_only_halves_it():
    x1, x2 = photos(8).double(), photos(8, seed=1).double()
    stopped, free = small("unpredicted").double(), small("unpredicted").double()
    free.stop_gradient = False
    half, whole = (gradient(model.loss(x1, x2)["loss"], model) for model in (stopped, free))
    torch.testing.assert_close(2 * half, whole)
    # With a predictor it does not.
    stopped, free = small().double(), small("free").double()
    half, whole = (gradient(model.loss(x1, x2)["loss"], model) for model in (stopped, free))
    assert F.cosine_similarity(half, whole, dim=0) < 0.99


def test_the_meter_is_that_of_the_first_views_projections():
    model, x1, x2 = small().eval(), photos(8), 0.1 * photos(8, seed=1)
    losses = model.loss(x1, x2)
    torch.testing.assert_close(losses["spread"], simsiam.spread(model(x1)[0]).detach())
    assert not torch.isclose(losses["spread"], simsiam.spread(model(x2)[0]))


def test_each_view_meets_batch_norm_alone():
    model, x1, x2 = small(), photos(8), photos(8, seed=1)
    before = [p.clone() for p in model(x1)]
    model.loss(x1, x2)
    torch.testing.assert_close(list(model(x1)), before)
    assert model.encoder[1].num_batches_tracked == 4


def test_the_meter_knows_a_healthy_output_from_a_collapsed_one():
    torch.manual_seed(0)
    assert simsiam.spread(torch.randn(4000, 64)).item() == pytest.approx(1, abs=0.02)
    assert simsiam.spread(5 * torch.ones(100, 64) + 1e-6 * torch.randn(100, 64)).item() < 1e-5
    # Scale does not matter, direction does: these are equal after normalisation.
    assert simsiam.spread(torch.rand(100, 1) * torch.ones(100, 64)).item() < 1e-6


@pytest.mark.parametrize("batch", [3, 16, 100])
def test_batch_norm_without_a_shift_keeps_the_root_mean_square_above_two_over_the_root_of_the_batch(batch):
    # The least: all alike but one, opposite and so much longer that the sum is zero.
    z = torch.ones(batch, 8, dtype=torch.double)
    z[-1] *= 1 - batch
    norm = nn.BatchNorm1d(8, affine=False).double()
    assert simsiam.spread(norm(z)).item() == pytest.approx(2 / math.sqrt(batch), abs=1e-4)
    # The meter is a mean, and less where a scale leaves a single number of the 8.
    one = torch.eye(8, dtype=torch.double)[0]
    assert simsiam.spread(norm(z) * one).item() == pytest.approx(2 / math.sqrt(batch * 8), abs=1e-4)
    # As a root mean square no batch that sums to zero is below, whatever its directions and lengths.
    for seed in range(50):
        torch.manual_seed(seed)
        z = torch.randn(batch, 3, dtype=torch.double) * torch.randn(batch, 1, dtype=torch.double).mul(3).exp()
        z -= z.mean(0)
        assert F.normalize(z, dim=1).var(0).sum() >= 4 / batch - 1e-12
    # The fixed statistics of evaluation mode have no such bound: the many alike are seen alone.
    norm.eval()
    assert simsiam.spread(norm(torch.ones(batch, 8, dtype=torch.double) + 1)) < 1e-6


def test_a_shift_lowers_the_meter_by_its_share_of_the_length():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(64)
    scale, shift = 0.5 + torch.rand(64), 2 * torch.randn(64)
    norm.load_state_dict({"weight": scale, "bias": shift}, strict=False)
    found = F.normalize(norm(torch.randn(4000, 64)), dim=1).var(0).sum().sqrt()
    expected = scale.norm() / torch.hypot(scale.norm(), shift.norm())
    torch.testing.assert_close(found, expected, atol=0, rtol=0.03)


@pytest.mark.parametrize("views", [(photos(1), photos(1)), (photos(4),), ()])
def test_a_batch_of_one_and_a_single_view_are_refused(views):
    with pytest.raises(ValueError, match="needs another to predict, and batch norm needs at least 2"):
        small().loss(*views)


# --- more views than two ---------------------------------------------------------------------------


def test_with_more_views_each_prediction_meets_the_mean_of_the_other_projections():
    model = small().double().eval()
    views_ = [photos(6, seed=seed).double() for seed in range(3)]
    zs, ps = zip(*(model(x) for x in views_), strict=True)
    by_hand = [
        -F.cosine_similarity(ps[0], (zs[1] + zs[2]).detach() / 2),
        -F.cosine_similarity(ps[1], (zs[0] + zs[2]).detach() / 2),
        -F.cosine_similarity(ps[2], (zs[0] + zs[1]).detach() / 2),
    ]
    expected = torch.stack(by_hand).mean()
    loss = model.loss(*views_)["loss"]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, model), gradient(expected, model))


def test_the_mean_of_others_leaves_one_out():
    zs = torch.arange(12.0).view(4, 3, 1)
    for i in range(4):
        others = torch.cat([zs[:i], zs[i + 1 :]]).mean(0)
        torch.testing.assert_close(simsiam.mean_of_others(list(zs), i), others)


# --- projections on a circle -----------------------------------------------------------------------


def test_directions_that_agree_lie_on_one_point_of_the_circle_and_others_within():
    torch.manual_seed(0)
    one = F.normalize(torch.randn(1, 8), dim=1).expand(5, 50, 8)
    flat = simsiam.on_axes(one)
    torch.testing.assert_close(flat.norm(dim=2), torch.ones(5, 50, dtype=torch.double))
    assert flat.std(1).max() < 1e-6 and flat.std(0).max() < 1e-6
    spread_ = simsiam.on_axes(F.normalize(torch.randn(5, 50, 8), dim=2))
    assert spread_.norm(dim=2).max() <= 1 + 1e-9


def test_axes_follow_the_moment_before_whatever_turns_all_vectors():
    """A rotation of all vectors, or a sign that the decomposition flips, moves no point."""
    torch.manual_seed(1)
    z = F.normalize(torch.randn(40, 6, dtype=torch.double) * torch.tensor([3, 2, 1, 0.1, 0.1, 0.1]), dim=1)
    turned = [z @ torch.linalg.qr(torch.randn(6, 6, dtype=torch.double)).Q for _ in range(4)]
    flat = simsiam.on_axes(torch.stack([z, *turned]))
    torch.testing.assert_close(flat, flat[:1].expand_as(flat))
    # In two dimensions nothing is lost: distances stay.
    circle = F.normalize(torch.randn(1, 30, 2, dtype=torch.double), dim=2)
    torch.testing.assert_close(
        torch.cdist(simsiam.on_axes(circle), simsiam.on_axes(circle)), torch.cdist(circle, circle)
    )


# --- variants and heads ----------------------------------------------------------------------------


def test_each_variant_takes_one_thing_away():
    def norms(model):
        parts = (model.projector, model.predictor)
        return [sum(isinstance(layer, nn.BatchNorm1d) for layer in part.modules()) for part in parts]

    models = {variant: small(variant) for variant in simsiam.VARIANTS}
    assert {name: norms(model) for name, model in models.items()} == {
        "full": [2, 1],
        "free": [2, 1],
        "unpredicted": [2, 0],
        "unnormed": [0, 0],
        "unnormed_free": [0, 0],
        "unnormed_unpredicted": [0, 0],
        "unnormed_projector": [0, 1],
        "unnormed_predictor": [2, 0],
    }
    assert [name for name, model in models.items() if not model.stop_gradient] == ["free", "unnormed_free"]
    direct = [name for name, model in models.items() if isinstance(model.predictor, nn.Identity)]
    assert direct == ["unpredicted", "unnormed_unpredicted"]
    assert isinstance(models["full"].projector[-1], nn.BatchNorm1d)
    assert isinstance(models["full"].predictor[-1], nn.Linear)
    # On one seed, what two variants share begins alike.
    for model in models.values():
        for ours, theirs in zip(models["full"].encoder.parameters(), model.encoder.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_the_method_learns_and_no_stop_gradient_collapses():
    found = {}
    images = photos(64, size=16)
    augment = views.Augmentation()
    for variant in ("full", "free"):
        model = small(variant)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

        def loss_fn(x, model=model):
            return model.loss(augment(x), augment(x))

        history = fit(GradientStep(model, loss_fn, optimizer), Batches(images, batch_size=32), 50)
        found[variant] = {name: history[name][-10:].mean() for name in ("loss", "spread")}
    assert found["free"]["loss"] < found["full"]["loss"]
    assert found["free"]["spread"] < 0.5 * found["full"]["spread"]


# --- the chapter refuses what cannot be meant ------------------------------------------------------


def opened(upto, **given):
    """What the chapter's names hold after the cell ``upto``, with its tiny settings and those given."""
    cells = {cell.id: cell.source for cell in code_cells(read("05_simsiam"))}
    namespace = {"In": [cells["parameters"]]}
    exec(cells["parameters"], namespace)
    namespace |= {**tiny("05_simsiam"), "device": "cpu", **given}
    for name in ("opening", "data", "limits"):
        exec(compile(cells[name], name, "exec"), namespace)
        if name == upto:
            return namespace
    raise AssertionError(upto)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 121}, "k = 121: at most 120, the training images"),
        ({"batch_size": 121}, "batch_size = 121: at most 120, the training images"),
        ({"fast_views": 21}, "fast_views = 21: at most 20, batch_size"),
        ({"probe_images": 61}, "probe_images = 61: at most 60, the test images"),
        ({"patch_size": 32}, "patch_size = 32: at most 31, a pixel less than an image has"),
        ({"validation_images": 61}, "validation_images = 61: at most 60, half of the training images"),
        ({"dataset": "digits"}, "dataset = 'digits': its images are grey"),
    ],
)
def test_the_chapter_refuses_and_says_why_before_anything_trains(given, message):
    with pytest.raises(ParameterError, match=message):
        opened("limits", **given)


def test_validation_images_take_the_test_images_place():
    usual = opened("data")["data"]
    held = opened("data", validation_images=60)["data"]
    assert len(held.train) == len(held.test) == 60
    assert torch.equal(held.train.images, usual.train.images[:60])
    assert torch.equal(held.test.labels, usual.train.labels[60:])


# --- details ---------------------------------------------------------------------------------------


def test_similarity_is_taken_in_single_precision_at_least():
    p, z = torch.randn(4, 6).bfloat16(), torch.randn(4, 6).bfloat16()
    found = simsiam.negative_cosine(p, z)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, simsiam.negative_cosine(p.float(), z.float()))
    assert simsiam.negative_cosine(p.double(), z.double()).dtype == torch.float64


def test_a_batch_of_two_is_enough():
    assert small().loss(photos(2), photos(2, seed=1))["loss"].isfinite()


def test_heads_have_the_papers_layers():
    def layers(head):
        return [
            (type(layer).__name__, *(tuple(layer.weight.shape) if hasattr(layer, "weight") else ())) for layer in head
        ]

    norm, relu = "BatchNorm1d", "ReLU"
    projector, predictor = simsiam.projector(8, 16), simsiam.predictor(16, 4)
    assert layers(projector) == [("Linear", 16, 8), (norm, 16), (relu,), ("Linear", 16, 16), (norm, 16)]
    assert layers(predictor) == [("Linear", 4, 16), (norm, 4), (relu,), ("Linear", 16, 4)]
    assert projector[0].bias is None and projector[3].bias is None and predictor[0].bias is None
    assert predictor[3].bias is not None, "where no norm follows, a shift is not needless"
    plain = simsiam.projector(8, 16, batch_norm=False), simsiam.predictor(16, 4, batch_norm=False)
    assert [layers(head) for head in plain] == [
        [("Linear", 16, 8), (relu,), ("Linear", 16, 16)],
        [("Linear", 4, 16), (relu,), ("Linear", 16, 4)],
    ]
    assert plain[0][0].bias is not None


def test_the_spread_is_taken_over_the_batch_for_each_number():
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = math.sqrt(2) * (torch.tensor([1.0, 0, -1]).std() + torch.tensor([0.0, 1, 0]).std()) / 2
    torch.testing.assert_close(simsiam.spread(3 * z), expected)


def test_projection_and_prediction_come_in_that_order():
    model = simsiam.SimSiam(nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 5))
    x = torch.rand(3, 3, 2, 2)
    z, p = model(x)
    torch.testing.assert_close(z, model.projector(x.flatten(1)))
    torch.testing.assert_close(p, model.predictor(z))
    assert model.stop_gradient
