"""Chapter 5: views and a training step of SimSiam. The peer is lightly: its transforms, loss and heads."""

import copy

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.harness import Case, Way, endless, looped, repeated
from lib import evaluate, nets, optim, simsiam, train, views

WIDTH, DIM, HIDDEN, SIZE, SIDE = 32, 256, 64, 128, 24  # the laptop profile's
FEATURES, FOREVER, BFLOAT16 = 4 * WIDTH, 10**6, {"amp": torch.bfloat16}


def new_model() -> simsiam.SimSiam:
    encoder = nets.small_resnet(3, WIDTH, [1, 1, 1])
    return simsiam.build(encoder, FEATURES, DIM, HIDDEN).to(memory_format=torch.channels_last)


def step_of(model: nn.Module, loss_fn) -> train.GradientStep:
    return train.GradientStep(model, loss_fn, optim.Muon(model.parameters(), 1e-3), **BFLOAT16)


def our_step() -> train.GradientStep:
    model, augment = new_model(), views.Augmentation(size=SIDE)
    return step_of(model, lambda x: model.loss(augment(x), augment(x)))


def per_image() -> v2.Transform:
    """A view by torchvision's transforms, image by image."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, scale=(0.2, 1)),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def tutorial(images: Tensor) -> Way:
    view, model = per_image(), new_model().to(memory_format=torch.contiguous_format).train()
    muon = optim.Muon(model.parameters(), 1e-3)

    def step(batch) -> Tensor:
        loss = model.loss(*batch[0])["loss"]
        muon.zero_grad()
        loss.backward()
        muon.step()
        return loss

    return looped(step, endless(images, SIZE, lambda image: (view(image), view(image))))


def pipeline(images: Tensor) -> Way:
    """Our own step behind the tutorial's views: what batched views are worth alone."""
    view, model = per_image(), new_model()
    step = step_of(model, model.loss)
    pairs = endless(images, SIZE, lambda image: (view(image), view(image)))

    def way(units: int) -> None:
        for _ in range(units):
            step(tuple(next(pairs)[0]))

    return way


def lightly(images: Tensor) -> Way | None:
    """The same encoder under lightly's heads, loss and transforms; None where it is not installed."""
    try:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead
        from lightly.transforms import SimSiamTransform
    except ImportError:
        return None
    encoder = nets.small_resnet(3, WIDTH, [1, 1, 1])
    projector = SimSiamProjectionHead(FEATURES, DIM, DIM)
    predictor = SimSiamPredictionHead(DIM, HIDDEN, DIM)
    parts = nn.ModuleList([encoder, projector, predictor]).train()
    sgd, criterion = torch.optim.SGD(parts.parameters(), 1e-3, momentum=0.9), NegativeCosineSimilarity()

    def step(batch) -> Tensor:
        z = [projector(encoder(x)) for x in batch[0]]
        p = [predictor(each) for each in z]
        loss = 0.5 * (criterion(p[0], z[1].detach()) + criterion(p[1], z[0].detach()))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        return loss

    return looped(step, endless(images, SIZE, SimSiamTransform(input_size=SIDE, gaussian_blur=0.0)))


def neighbours() -> Case:
    """kNN's search, by blocks of test images, against one test image after the other."""
    bank, tests = torch.randn(20_000, FEATURES), torch.randn(200, FEATURES)
    unit = nn.functional.normalize(bank)

    def one_by_one(units: int) -> None:
        for code in tests[:units]:
            (unit @ nn.functional.normalize(code, dim=0)).topk(200)

    ways = {"ours": lambda n: evaluate.nearest_codes(bank, tests[:n], 200), "tutorial": one_by_one}
    return Case("200 neighbours in a bank of 20,000", ways, 200, 1, {"tutorial": 1.0}, "image")


def cases() -> list[Case]:
    images = torch.randint(256, (20 * SIZE, 3, 32, 32), dtype=torch.uint8)
    batches, step = train.Batches(images, batch_size=SIZE, drop_last=True), our_step()
    augment, x = views.Augmentation(size=SIDE), images[:SIZE].float() / 255
    alone = new_model()
    ways = {
        "ours": lambda n: train.fit(step, batches, n),
        "limit": repeated(step_of(alone, alone.loss), (augment(x), augment(x))),
        "tutorial": tutorial(images),
        "our step, torchvision's views": pipeline(copy.deepcopy(images)),
    }
    bars = {"limit": 0.9, "tutorial": 2.0, "our step, torchvision's views": 1.8}
    if peer := lightly(images):
        ways["peer"], bars["peer"] = peer, 1.8
    return [Case(f"SimSiam, batch {SIZE}", ways, 12, SIZE, bars), neighbours()]
