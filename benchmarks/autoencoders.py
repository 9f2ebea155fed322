"""Chapter 1: a training step of its VAE on MNIST's shape. The peer is pythae's trainer (Chadebec et al., 2022)."""

import contextlib
import io
import logging
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harness import Case, Way, endless, looped, repeated
from lib import nets, optim, train, vae

SHAPE, LATENT_DIM, HIDDEN, SIZE = (1, 28, 28), 20, [512, 256], 128  # as the laptop profile has them
FOREVER = 10**6


def new_vae() -> vae.VAE:
    encoder = nets.mlp_encoder(SHAPE, HIDDEN, 2 * LATENT_DIM)
    return vae.VAE(encoder, nets.mlp_decoder(LATENT_DIM, HIDDEN[::-1], SHAPE), 0.3)


def our_step() -> train.GradientStep:
    model = new_vae()
    return optim.adam_one_cycle(model, lambda x: vae.vae_loss(model, x), FOREVER, 2e-3)


def tutorial(images: Tensor) -> Way:
    model = new_vae().train()
    adam = torch.optim.Adam(model.parameters(), 2e-3)

    def step(batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = vae.vae_loss(model, batch[0])["loss"]
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss

    return looped(step, endless(images, SIZE))


def pythae(images: Tensor) -> Way | None:
    """One epoch of pythae's trainer, on the same number of weights; None where it is not installed."""
    try:
        from pythae.data.datasets import BaseDataset
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
    except ImportError:
        return None
    logging.disable(logging.WARNING)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            layers = list(nets.mlp_encoder(SHAPE, HIDDEN, 2 * LATENT_DIM))
            self.body = nn.Sequential(*layers[:-1])
            self.mu, self.logvar = nn.Linear(HIDDEN[-1], LATENT_DIM), nn.Linear(HIDDEN[-1], LATENT_DIM)

        def forward(self, x: Tensor) -> ModelOutput:
            h = self.body(x)
            return ModelOutput(embedding=self.mu(h), log_covariance=self.logvar(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.body = nets.mlp_decoder(LATENT_DIM, HIDDEN[::-1], SHAPE)

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.body(z).sigmoid())

    model = VAE(VAEConfig(input_dim=SHAPE, latent_dim=LATENT_DIM), encoder=Encoder(), decoder=Decoder())
    x = images.float() / 255

    def way(units: int) -> None:
        some = x[: units * SIZE]
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            config = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=1,
                learning_rate=2e-3,
                per_device_train_batch_size=SIZE,
                no_cuda=not torch.cuda.is_available(),
            )
            trainer = BaseTrainer(model, BaseDataset(some, torch.zeros(len(some))), training_config=config)
            trainer.prepare_training()
            trainer.train_step(epoch=1)
            assert Path(folder).exists()

    return way


def cases() -> list[Case]:
    units = 200
    images = torch.randint(256, (units * SIZE, *SHAPE), dtype=torch.uint8)
    batches = train.Batches(images, batch_size=SIZE)
    step, fixed = our_step(), (images[:SIZE].float() / 255,)
    ways = {
        "ours": lambda n: train.fit(step, batches, n),
        "limit": repeated(our_step(), fixed),
        "tutorial": tutorial(images),
    }
    bars = {"limit": 0.9, "tutorial": 2.0}
    if peer := pythae(images):
        ways["peer"], bars["peer"] = peer, 1.3
    return [Case(f"VAE of dense layers, batch {SIZE}", ways, units, SIZE, bars)]
