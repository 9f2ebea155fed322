"""Chapter 2: a training step of its auto-decoder, and the inference of codes for unseen images."""

import torch
from torch import Tensor, nn

from benchmarks.harness import Case, Way, endless, looped, repeated
from lib import autodecoder as ad
from lib import nets, train

SHAPE, LATENT_DIM, CHANNELS, SIZE, COUNT = (1, 28, 28), 128, [64, 32], 64, 1000  # the laptop profile's
FOREVER = 10**6


def new_decoder() -> ad.GaussianDecoder:
    return ad.GaussianDecoder(nets.deconv_decoder(LATENT_DIM, CHANNELS, SHAPE), output=nets.pixels)


def our_step() -> ad.AutodecoderStep:
    codes = ad.Codes(ad.normal_start(COUNT, LATENT_DIM, 0.01))
    model = ad.Model(new_decoder(), codes, 1e-4)
    return ad.AutodecoderStep(model.decoder, codes, model.loss, FOREVER, 3e-3, 3e-2)


def tutorial(images: Tensor) -> Way:
    """Codes in an ordinary table, whose every row Adam moves in every step."""
    decoder, codes = new_decoder().train(), nn.Embedding(COUNT, LATENT_DIM)
    adam = torch.optim.Adam([*decoder.parameters(), *codes.parameters()], 3e-3)

    def step(batch: tuple[Tensor, Tensor]) -> Tensor:
        x, index = batch
        z = codes(index)
        loss = ((decoder(z) - x) ** 2).sum((1, 2, 3)).mean() + 1e-4 * (z**2).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return looped(step, endless(images, SIZE))


def one_at_a_time(decoder: nn.Module, images: Tensor, steps: int) -> Way:
    """Codes fitted as it is usually written: image by image, with gradients for the decoder's weights, too."""

    def way(units: int) -> None:
        for image in images[:units]:
            z = torch.zeros(1, LATENT_DIM, requires_grad=True)
            adam = torch.optim.Adam([z], 0.2)
            for _ in range(steps):
                loss = ((decoder(z) - image[None].float() / 255) ** 2).sum()
                adam.zero_grad()
                loss.backward()
                adam.step()

    return way


def cases() -> list[Case]:
    images = torch.randint(256, (COUNT, *SHAPE), dtype=torch.uint8)
    rows = torch.arange(COUNT)
    batches = train.Batches(images, rows, batch_size=SIZE, drop_last=True)
    step, fixed = our_step(), (images[:SIZE].float() / 255, rows[:SIZE])
    ways = {
        "ours": lambda n: train.fit(step, batches, n),
        "limit": repeated(our_step(), fixed),
        "tutorial": tutorial(images),
    }
    training = Case(f"auto-decoder, batch {SIZE}", ways, 60, SIZE, {"limit": 0.9, "tutorial": 2.0})
    model = ad.Model(new_decoder(), ad.Codes(ad.normal_start(COUNT, LATENT_DIM, 0.01)), 1e-4)
    fitted = {
        "ours": lambda n: ad.restore(model, images[:n], 10, 0.2),
        "tutorial": one_at_a_time(new_decoder(), images, 10),
    }
    return [training, Case("codes of unseen images, 10 steps each", fitted, 50, 1, {"tutorial": 2.0}, "image")]
