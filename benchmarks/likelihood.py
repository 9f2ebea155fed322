"""Chapter 3: training steps of two of its models, importance sampling and annealing."""

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from benchmarks.harness import Case, Way, endless, looped, repeated
from lib import annealing, likelihood, nets, optim, train

SHAPE, FOREVER = (1, 28, 28), 10**6
BFLOAT16 = {"amp": torch.bfloat16}  # as the laptop profile trains


def our_vae() -> likelihood.BernoulliVAE:
    encoder = nets.conv_encoder(SHAPE, 16, 200, nets.ELU, 1)
    decoder = nets.conv_decoder(100, 16, SHAPE, nets.ELU, 1)
    model = likelihood.BernoulliVAE(encoder, decoder, 100, SHAPE, likelihood.Flow(100, 4))
    return model.to(memory_format=torch.channels_last)


def report_vae() -> likelihood.BernoulliVAE:
    networks = nets.pooled_encoder(SHAPE, 200), nets.upsampled_decoder(100, SHAPE)
    return likelihood.BernoulliVAE(*networks, 100, SHAPE).to(memory_format=torch.channels_last)


def ordinary(layer: nn.Module) -> nn.Module:
    """torch's own ELU for ours, which computes the same."""
    for name, part in layer.named_children():
        setattr(layer, name, nn.ELU() if isinstance(part, nets.ELU) else ordinary(part))
    return layer


def tutorial(images: Tensor, model: likelihood.BernoulliVAE, loss_fn, optimizer: type, size: int) -> Way:
    """Single precision, weights where torch puts them, images from a DataLoader; the optimiser is ours."""
    model = ordinary(model).to(memory_format=torch.contiguous_format).train()
    optimizer = optimizer(model.parameters(), 3e-4)

    def step(batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = loss_fn(model, torch.bernoulli(batch[0]))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return looped(step, endless(images, size, to_tensor))


def training(name: str, make, loss_fn, make_step, optimizer: type, size: int, units: int) -> Case:
    images = torch.randint(256, (40 * size, *SHAPE), dtype=torch.uint8)
    fixed = (images[:size].float() / 255).bernoulli()
    model, alone = make(), make()
    step = make_step(model, lambda x: loss_fn(model, likelihood.binarise(x)))
    batches = train.Batches(images, batch_size=size)
    ways = {
        "ours": lambda n: train.fit(step, batches, n),
        "limit": repeated(make_step(alone, lambda x: loss_fn(alone, x)), (fixed,)),
        "tutorial": tutorial(images, make(), loss_fn, optimizer, size),
    }
    return Case(f"{name}, batch {size}", ways, units, size, {"limit": 0.9, "tutorial": 1.3})


def with_adam(model: nn.Module, loss_fn) -> train.GradientStep:
    adam = torch.optim.Adam(model.parameters(), 3e-4, fused=True)
    return train.GradientStep(model, loss_fn, adam, **BFLOAT16)


def with_muon(model: nn.Module, loss_fn) -> train.GradientStep:
    return optim.muon_one_cycle(model, loss_fn, FOREVER, 1e-3, clip=200.0, **BFLOAT16)


def quiet(model: likelihood.BernoulliVAE, x: Tensor) -> dict[str, Tensor]:
    return likelihood.dreg_loss(model, x, 1)


def importance(model: likelihood.BernoulliVAE, K: int = 100) -> Case:
    """Against a decoder call for each image and sample."""
    x = likelihood.binarise(torch.rand(10, *SHAPE))

    def loop(units: int) -> None:
        with train.evaluating(model):
            for image in x[:units].split(1):
                log_w = [likelihood.log_weights(model, image, 1) for _ in range(K)]
                likelihood.log_mean_exp(torch.cat(log_w))

    ways = {"ours": lambda n: likelihood.importance_sampling(model, x[:n], K), "tutorial": loop}
    return Case(f"importance sampling, K = {K}", ways, 4, 1, {"tutorial": 3.0}, "image")


def annealed(model: likelihood.BernoulliVAE, T: int = 20) -> Case:
    """Against the ten lines that the chapter shows, which reuse nothing.

    Their move here stands for Hamiltonian Monte Carlo's work: its gradients, a first one for each trajectory included.
    """
    x = likelihood.binarise(torch.rand(20, *SHAPE))
    path = annealing.tune(model, x, T)

    def read_me_first(units: int) -> None:
        few = x[:units]
        start = model.posterior(few)

        def move(z: Tensor, beta: float) -> Tensor:
            size = path.step_sizes[min(T - 2, int(beta * T) - 1), :units, None] * start.stddev
            for _ in range(path.leapfrog + 1):
                z = z.detach().requires_grad_()
                density = beta * likelihood.log_joint(model, few, z) + (1 - beta) * start.log_prob(z)
                z = z + size * torch.autograd.grad(density.sum(), z)[0]
            return z.detach()

        betas = path.betas.tolist()
        annealing.read_me_first(model, few, betas, move, 4)

    ways = {"ours": lambda n: annealing.lower(model, x[:n], one(path, n), 4), "tutorial": read_me_first}
    return Case(f"annealing, T = {T}, 4 chains", ways, 20, 1, {"tutorial": 1.0}, "image")


def one(path: annealing.Path, count: int) -> annealing.Path:
    sizes = path.step_sizes[:, :count]
    return annealing.Path(path.betas, path.leapfrog, path.from_prior, sizes, path.acceptance)


def cases() -> list[Case]:
    model = our_vae()
    return [
        training("report 004's VAE", report_vae, likelihood.elbo_loss, with_adam, torch.optim.Adam, 64, 20),
        training("our VAE with a flow", our_vae, quiet, with_muon, optim.Muon, 100, 20),
        importance(model),
        annealed(model),
    ]
