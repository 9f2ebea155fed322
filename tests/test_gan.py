import math

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

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


def test_the_average_takes_part_in_batch_norms_statistics_slowly_too():
    step = make_step()
    step((torch.rand(6, *SHAPE),))
    first = step.ema.module[2].running_mean.clone()
    step((torch.rand(6, *SHAPE),))
    expected = 0.9 * first + 0.1 * step.generator[2].running_mean
    torch.testing.assert_close(step.ema.module[2].running_mean, expected)
    assert not torch.allclose(expected, step.generator[2].running_mean)


def test_a_step_trains_in_training_mode_even_after_a_careless_evaluation():
    step = make_step()
    step.discriminator = nn.Sequential(nn.BatchNorm2d(1), step.discriminator)
    step.generator.eval(), step.discriminator.eval()
    step((torch.rand(6, *SHAPE),))
    assert step.generator.training and step.discriminator.training
    # One pass of the generator; real, made and, for the generator's update, made again.
    assert step.generator[2].num_batches_tracked == 1
    assert step.discriminator[0].num_batches_tracked == 3


def test_the_generators_update_sees_the_batch_statistics_of_the_discriminator():
    """Frozen weights are not frozen statistics: G must fool the D that was just trained."""
    step, x = make_step(rate_g=0, rate_d=0), torch.rand(6, *SHAPE)
    step.discriminator = nn.Sequential(nn.BatchNorm2d(1), step.discriminator)
    torch.manual_seed(1)
    loss = step((x,))["generator"]
    torch.manual_seed(1)
    x_fake = nets.pixels(step.generator(torch.randn(6, 4)))
    torch.testing.assert_close(loss, gan.generator_loss(step.discriminator(x_fake)).detach())


def test_weights_fixed_on_purpose_stay_fixed():
    step = make_step()
    step.discriminator[0].bias.requires_grad_(False)
    step((torch.rand(6, *SHAPE),))
    flags = [weight.requires_grad for weight in step.discriminator.parameters()]
    assert flags == [True, False, *[True] * (len(flags) - 2)]


def test_neither_loss_leaks_into_the_other_networks_gradient():
    """Missing detach, or gradients kept from the step before: both would add up."""
    step, x = make_step(rate_g=0, rate_d=0), torch.rand(6, *SHAPE)
    for _ in range(2):
        torch.manual_seed(1)
        step((x,))
    twice = gradients(step.discriminator), gradients(step.generator)
    fresh = make_step(rate_g=0, rate_d=0)
    torch.manual_seed(1)
    fresh((x,))
    torch.testing.assert_close(twice[0], gradients(fresh.discriminator))
    torch.testing.assert_close(twice[1], gradients(fresh.generator))


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


class Echo(nn.Module):
    """A 'generator' whose logits are its noise."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, z):
        self.sizes.append(len(z))
        return z


def test_samples_are_made_from_standard_normal_noise_in_batches():
    generator = Echo()
    noise = gan.sample(generator, 5_003, 3, "cpu").logit()
    assert noise.shape == (5_003, 3) and generator.sizes == [500] * 10 + [3]
    assert scipy.stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-4


def test_a_step_tells_the_losses_that_it_lowered_without_their_graphs():
    step, x = make_step(rate_g=0, rate_d=0), torch.rand(6, *SHAPE)
    torch.manual_seed(1)
    losses = step((x,))
    torch.manual_seed(1)
    fake = step.discriminator(nets.pixels(step.generator(torch.randn(6, 4))))
    torch.testing.assert_close(losses["discriminator"], gan.discriminator_loss(step.discriminator(x), fake).detach())
    torch.testing.assert_close(losses["generator"], gan.generator_loss(fake).detach())
    assert list(losses) == ["discriminator", "generator"] and not any(v.requires_grad for v in losses.values())


def test_the_discriminator_learns_to_tell_and_the_generator_to_follow():
    step, x = make_step(rate_g=0.0), torch.ones(16, *SHAPE)
    step.discriminator_optimizer = torch.optim.Adam(step.discriminator.parameters(), 1e-2)
    first = step((x,))["discriminator"]
    for _ in range(30):
        last = step((x,))
    assert last["discriminator"] < 0.7 * first
    step.discriminator_optimizer = torch.optim.SGD(step.discriminator.parameters(), 0.0)
    step.generator_optimizer = torch.optim.Adam(step.generator.parameters(), 1e-2)
    for _ in range(30):
        after = step((x,))
    assert after["generator"] < 0.7 * last["generator"]


def test_the_average_remembers_a_thousand_generators_and_is_part_of_the_state():
    generator, discriminator = nets.generator(4, 4, SHAPE), nets.discriminator(SHAPE, 4)
    optimizers = [torch.optim.SGD(net.parameters(), 0.1) for net in (generator, discriminator)]
    step = gan.GANStep(generator, discriminator, *optimizers, latent_dim=4)
    assert step.ema_decay == 0.999 and step.parts["ema"] is step.ema
    assert step.parts["generator_optimizer"] is optimizers[0] and step.parts["discriminator_optimizer"] is optimizers[1]
    assert step.parts["generator"] is generator and step.parts["discriminator"] is discriminator
