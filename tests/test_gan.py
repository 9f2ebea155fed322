import math

import pytest
import torch
import torch.nn.functional as F

from lib import gan, nets

SHAPE = (1, 8, 8)


def test_losses_are_cross_entropies_with_the_right_labels():
    real, fake = torch.randn(9), torch.randn(9)
    expected = F.binary_cross_entropy_with_logits(real, torch.ones(9)) + F.binary_cross_entropy_with_logits(
        fake, torch.zeros(9)
    )
    assert torch.allclose(gan.discriminator_loss(real, fake), expected)
    assert torch.allclose(gan.generator_loss(fake), F.binary_cross_entropy_with_logits(fake, torch.ones(9)))
    assert gan.discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(2 * math.log(2))


def test_the_generators_loss_does_not_saturate():
    """Where the discriminator is sure of a fake, log(1 − D) has no gradient left; −log D has all of it."""
    logit = torch.tensor([-20.0], requires_grad=True)
    gan.generator_loss(logit).backward()
    assert logit.grad.item() == pytest.approx(-1, abs=1e-6)


def make_step(rate_g=1e-2, rate_d=1e-2):
    torch.manual_seed(0)
    generator, discriminator = nets.generator(4, 4, SHAPE), nets.discriminator(SHAPE, 4)
    optimizers = torch.optim.SGD(generator.parameters(), rate_g), torch.optim.SGD(discriminator.parameters(), rate_d)
    return gan.GANStep(generator, discriminator, *optimizers, latent_dim=4, ema_decay=0.9)


def gradients(module):
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


def test_each_network_gets_the_gradient_of_its_own_loss_alone():
    step, x = make_step(rate_g=0, rate_d=0), torch.rand(6, *SHAPE)
    torch.manual_seed(1)
    step((x,))
    by_step = gradients(step.discriminator), gradients(step.generator)

    torch.manual_seed(1)
    x_fake = nets.pixels(step.generator(torch.randn(6, 4)))
    step.discriminator.zero_grad()
    gan.discriminator_loss(step.discriminator(x), step.discriminator(x_fake.detach())).backward(retain_graph=True)
    assert torch.allclose(by_step[0], gradients(step.discriminator), atol=1e-6)
    step.generator.zero_grad()
    gan.generator_loss(step.discriminator(x_fake)).backward()
    assert torch.allclose(by_step[1], gradients(step.generator), atol=1e-6)


@pytest.mark.parametrize("frozen", ["generator", "discriminator"])
def test_a_network_without_a_rate_stands_still(frozen):
    step = make_step(**{f"rate_{frozen[0]}": 0})
    before = {name: [p.clone() for p in getattr(step, name).parameters()] for name in ("generator", "discriminator")}
    step((torch.rand(6, *SHAPE),))
    for name, old in before.items():
        same = all(torch.equal(p, q) for p, q in zip(getattr(step, name).parameters(), old, strict=True))
        assert same == (name == frozen)
    assert all(p.requires_grad for p in step.discriminator.parameters())


def test_the_average_follows_the_generator_slowly():
    step = make_step(rate_g=1.0)
    step((torch.rand(6, *SHAPE),))
    first = [p.clone() for p in step.ema.module.parameters()]
    step((torch.rand(6, *SHAPE),))
    for old, average, new in zip(first, step.ema.module.parameters(), step.generator.parameters(), strict=True):
        assert torch.allclose(average, 0.9 * old + 0.1 * new, atol=1e-6)


def test_samples_come_in_evaluation_mode_and_leave_no_trace():
    step = make_step()
    step((torch.rand(6, *SHAPE),))
    statistics = step.generator[2].running_mean.clone()
    images = gan.sample(step.generator, 7, 4, "cpu", batch=3)
    assert images.shape == (7, *SHAPE)
    assert 0 <= images.min() <= images.max() <= 1
    assert not images.requires_grad
    assert torch.equal(statistics, step.generator[2].running_mean)
    assert step.generator.training
