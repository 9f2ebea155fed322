import math

import nbformat
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib import nets, simsiam, views
from lib.files import ROOT
from lib.report.unconverted import ParameterError
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


def tiny(variant="SimSiam", seed=0):
    torch.manual_seed(seed)
    return simsiam.build(variant, nets.small_resnet(3, 4, [1, 1]), 8, dim=16, hidden=4)


def gradient(loss, model):
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])


def test_the_whole_models_gradient_is_that_of_constant_targets():
    model, x1, x2 = tiny().double(), photos(8).double(), photos(8, seed=1).double()
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
    stopped, free = tiny("no predictor").double(), tiny("no predictor").double()
    free.stop_gradient = False
    half, whole = (gradient(model.loss(x1, x2)["loss"], model) for model in (stopped, free))
    torch.testing.assert_close(2 * half, whole)
    # With a predictor it does not.
    stopped, free = tiny().double(), tiny("no stop-gradient").double()
    half, whole = (gradient(model.loss(x1, x2)["loss"], model) for model in (stopped, free))
    assert F.cosine_similarity(half, whole, dim=0) < 0.99


def test_the_meter_is_that_of_the_first_views_projections():
    model, x1, x2 = tiny().eval(), photos(8), 0.1 * photos(8, seed=1)
    losses = model.loss(x1, x2)
    torch.testing.assert_close(losses["spread"], simsiam.spread(model(x1)[0]).detach())
    assert not torch.isclose(losses["spread"], simsiam.spread(model(x2)[0]))


def test_each_view_meets_batch_norm_alone():
    model, x1, x2 = tiny(), photos(8), photos(8, seed=1)
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


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2 images"):
        tiny().loss(photos(1), photos(1))


# --- variants and heads ----------------------------------------------------------------------------


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match=r"variant='byol': choose one of 'SimSiam'"):
        simsiam.build("byol", nn.Identity(), 4, 4, 2)


def test_each_variant_takes_one_thing_away():
    def norms(model):
        return sum(isinstance(part, nn.BatchNorm1d) for part in model.modules())

    models = {variant: tiny(variant) for variant in simsiam.VARIANTS}
    assert [norms(model) for model in models.values()] == [3, 3, 2, 0]
    assert [model.stop_gradient for model in models.values()] == [True, False, True, True]
    assert isinstance(models["no predictor"].predictor, nn.Identity)
    assert isinstance(models["SimSiam"].projector[-1], nn.BatchNorm1d)
    assert isinstance(models["SimSiam"].predictor[-1], nn.Linear)
    # On one seed, what two variants share begins alike.
    for variant in simsiam.VARIANTS[1:]:
        for ours, theirs in zip(
            models["SimSiam"].encoder.parameters(), models[variant].encoder.parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)


def test_the_method_learns_and_no_stop_gradient_collapses():
    found = {}
    images = photos(64, size=16)
    augment = views.Augmentation()
    for variant in ("SimSiam", "no stop-gradient"):
        model = tiny(variant)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)

        def loss_fn(x, model=model):
            return model.loss(augment(x), augment(x))

        history = fit(GradientStep(model, loss_fn, optimizer), Batches(images, batch_size=32), 50)
        found[variant] = {name: history[name][-10:].mean() for name in ("loss", "spread")}
    assert found["no stop-gradient"]["loss"] < found["SimSiam"]["loss"]
    assert found["no stop-gradient"]["spread"] < 0.5 * found["SimSiam"]["spread"]


# --- the chapter refuses what cannot be meant ------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variants": ["byol"]}, "variants = .'byol'.: it must be a list of values one of 'no stop-gradient'"),
        ({"k": 51, "curve_images": 50}, "k = 51: with this data at most 50, the bank"),
        ({"ks": [1, 61]}, "ks = 61: with this data at most 60, the bank"),
        ({"batch_size": 1}, "batch_size = 1: it must be at least 2"),
        ({"batch_size": 61}, "batch_size = 61: with this data at most 60"),
        ({"optimizer": "Adam"}, "optimizer = 'Adam': it must be one of 'SGD', 'Muon'"),
        ({"encoder": "vit"}, "encoder = 'vit': it must be one of 'small', 'resnet18'"),
        ({"variant_epochs": 99}, "variant_epochs = 99: at most epochs"),
        ({"dataset": "digits"}, "dataset = 'digits': its images are grey"),
    ],
)
def test_the_chapter_refuses_and_says_why_before_anything_trains(given, message):
    cells = [cell for cell in nbformat.read(ROOT / "book" / "05_simsiam.ipynb", 4).cells if cell.cell_type == "code"]
    namespace = {}
    exec(cells[0].source, namespace)
    small = {"train_images": 60, "test_images": 40, "batch_size": 20, "curve_images": 20, "tsne_images": 12}
    namespace |= {**small, "k": 5, "ks": [1, 5], **given}
    with pytest.raises(ParameterError, match=message):
        exec(cells[1].source, namespace)


# --- details ---------------------------------------------------------------------------------------


def test_similarity_is_taken_in_single_precision_at_least():
    p, z = torch.randn(4, 6).bfloat16(), torch.randn(4, 6).bfloat16()
    found = simsiam.negative_cosine(p, z)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, simsiam.negative_cosine(p.float(), z.float()))
    assert simsiam.negative_cosine(p.double(), z.double()).dtype == torch.float64


def test_a_batch_of_two_is_enough():
    assert tiny().loss(photos(2), photos(2, seed=1))["loss"].isfinite()


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
