import copy
import functools
import inspect

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn

from lib import gan, nets, optim, train, wgan

SHAPE = (3, 8, 8)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class Linear(nn.Module):
    """f(x) = a · x over all numbers of an example: its gradient is a wherever one looks."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x):
        return x.flatten(1) @ self.a


# --- the penalty -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0.3, 1.0, 2.5])
def test_a_linear_critic_pays_exactly_its_slopes_distance_from_one(length):
    a = torch.randn(192)
    critic = Linear(length * a / a.norm())
    norm = wgan.gradient_norm(critic, torch.rand(5, *SHAPE))
    assert norm.shape == (5,)
    assert torch.allclose(norm, torch.full((5,), length), atol=1e-6), "not over all numbers of an example"
    assert torch.allclose(wgan.penalty(norm, "two-sided"), torch.full((5,), (length - 1) ** 2), atol=1e-5)
    assert torch.allclose(wgan.penalty(norm, "one-sided"), torch.full((5,), max(0.0, length - 1) ** 2), atol=1e-5)


def test_one_sided_is_zero_with_no_slope_below_norm_one_and_two_sided_pulls_up():
    norm = torch.tensor([0.2, 0.9], requires_grad=True)
    loss = wgan.penalty(norm, "one-sided")
    assert loss.tolist() == [0, 0]
    loss.sum().backward()
    assert norm.grad.tolist() == [0, 0]
    norm.grad = None
    wgan.penalty(norm, "two-sided").sum().backward()
    assert torch.allclose(norm.grad, 2 * (norm.detach() - 1))


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="'both': choose one of 'two-sided', 'one-sided'"):
        wgan.penalty(torch.ones(2), "both")


def test_the_gradient_is_the_numerical_one_at_that_very_point():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0)).double()
    x = torch.rand(1, *SHAPE, dtype=torch.float64)
    steps = 1e-6 * torch.eye(192, dtype=torch.float64).view(192, *SHAPE)
    with torch.no_grad():
        slope = (critic(x + steps) - critic(x - steps)) / 2e-6
    assert wgan.gradient_norm(critic, x).item() == pytest.approx(slope.norm().item(), rel=1e-6)


def test_points_lie_between_real_and_fake_each_on_its_own_line():
    x, x_fake, t = torch.rand(6, *SHAPE), torch.rand(6, *SHAPE), torch.tensor([0, 1, 0.25, 0.5, 0.75, 0.9])
    x_hat = wgan.between(x, x_fake, t)
    assert torch.equal(x_hat[0], x_fake[0]) and torch.equal(x_hat[1], x[1])
    for example in range(6):
        assert torch.allclose(x_hat[example], t[example] * x[example] + (1 - t[example]) * x_fake[example])


def test_a_flat_critic_makes_no_nan():
    critic = Linear(torch.zeros(192))
    wgan.penalty(wgan.gradient_norm(critic, torch.rand(4, *SHAPE), differentiable=True)).mean().backward()
    assert critic.a.grad.isfinite().all()


def test_the_penalty_reaches_the_critics_weights():
    """d/da (‖a‖ − 1)² = 2 (‖a‖ − 1) a / ‖a‖: lost if the gradient's graph is not kept."""
    critic = Linear(torch.randn(192))
    wgan.penalty(wgan.gradient_norm(critic, torch.rand(4, *SHAPE), differentiable=True)).mean().backward()
    a = critic.a.detach()
    assert torch.allclose(critic.a.grad, 2 * (a.norm() - 1) * a / a.norm(), atol=1e-4)


def test_crosstalk_finds_batch_norm_and_nothing_in_the_books_critic():
    x = torch.rand(8, *SHAPE)
    plain = nets.conv_critic(SHAPE, [4, 8])
    assert wgan.crosstalk(plain, x) == pytest.approx(0, abs=1e-5)
    normed = nn.Sequential(plain[0], nn.BatchNorm2d(4), *plain[1:])
    assert wgan.crosstalk(normed, x) > 0.01
    assert wgan.crosstalk(normed.eval(), x) == pytest.approx(0, abs=1e-5), (
        "with fixed statistics each example is alone again"
    )


# --- the optimum of a linear critic, by hand -------------------------------------------------------


@pytest.mark.parametrize("kind", wgan.PENALTIES)
def test_a_trained_linear_critic_overshoots_as_derived(kind):
    """Means m apart: the best slope has norm 1 + W / 2λ for W = ‖m‖, so the estimate is W (1 + W / 2λ)."""
    shift, weight = torch.tensor([0.6, 0.8]), 5.0
    x_fake = torch.randn(64, 2)
    critic = Linear(torch.tensor([0.1, -0.1]))
    optimizer = torch.optim.SGD(critic.parameters(), 0.1)
    for _ in range(100):
        x = x_fake + shift
        norm = wgan.gradient_norm(critic, wgan.between(x, x_fake, torch.rand(64)), differentiable=True)
        loss = wgan.critic_loss(critic(x), critic(x_fake)) + weight * wgan.penalty(norm, kind)
        assert loss.shape == (64,)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    estimate = -wgan.critic_loss(critic(x), critic(x_fake)).mean().item()
    assert critic.a.norm().item() == pytest.approx(1 + 1 / (2 * weight), rel=1e-3)
    assert estimate == pytest.approx(1 * (1 + 1 / (2 * weight)), rel=1e-3)
    # Backwards, as the chapter reads the slope off the estimate.
    assert critic.a.norm().item() == pytest.approx((1 + (1 + 2 * estimate / weight) ** 0.5) / 2, rel=1e-3)


def test_the_exact_distance_of_shifted_sets_is_the_shift():
    x = torch.rand(40, 2)
    shuffled = x[torch.randperm(40)]
    assert wgan.wasserstein(x, shuffled) == pytest.approx(0, abs=1e-7)
    assert wgan.wasserstein(x, shuffled + torch.tensor([3.0, 4.0])) == pytest.approx(5, rel=1e-6)
    with pytest.raises(ValueError, match="40 and 39"):
        wgan.wasserstein(x, x[1:])


def test_the_exact_distance_is_scipys_in_one_dimension():
    a, b = torch.randn(60), 1 + 2 * torch.randn(60)
    assert wgan.wasserstein(a[:, None], b[:, None]) == pytest.approx(wasserstein_distance(a, b), rel=1e-6)


# --- the step --------------------------------------------------------------------------------------


def make_step(**options):
    generator = nn.Sequential(nets.deconv_decoder(6, [8, 4], SHAPE), nn.Sigmoid())
    settings = {"n_critic": 3, "ema_decay": 0.9, "learning_rate": 1e-3} | options
    return wgan.WGANStep(generator, nets.conv_critic(SHAPE, [4, 8]), 6, 10, **settings)


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("kind", wgan.PENALTIES)
@pytest.mark.parametrize(("steepness", "share"), [(0.5, 1.0), (1.5, 1.0), (1.5, 0.5), (1.5, 0.05)])
def test_a_step_is_the_plain_loop(kind, steepness, share):
    """n_critic separate critic updates with separate forward passes, then one of the generator."""
    # Plain descent: Adam's first moves are ± the rate, even where a gradient is rounding noise. In small steps: a large
    # one makes a steep critic so much steeper that rounding grows with it.
    step = make_step(kind=kind, penalty_weight=4.0, penalty_share=share, n_critic=2)
    few = {1.0: 6, 0.5: 3, 0.05: 1}[share]  # of an update's 6 pairs, at least one
    x = torch.rand(12, *SHAPE)
    # A fresh critic's slopes are about 0.05, where the one-sided penalty is 0 whatever the step does with it.
    with torch.no_grad():
        half_way = (x + step.generator(torch.randn(12, 6))) / 2
        step.critic[-2].weight *= steepness / wgan.gradient_norm(step.critic, half_way).mean()
    step.generator_optimizer = torch.optim.SGD(step.generator.parameters(), 1e-3)
    step.critic_optimizer = torch.optim.SGD(step.critic.parameters(), 1e-3)
    step.schedulers = []
    generator, critic = copy.deepcopy((step.generator, step.critic))
    optimizers = [torch.optim.SGD(net.parameters(), 1e-3) for net in (generator, critic)]
    torch.manual_seed(5)
    losses = step((x,))
    torch.manual_seed(5)
    z, t = torch.randn(18, 6), torch.rand(12)
    x_fake = generator(z[6:]).detach()
    distances, norms, penalties = [], [], []
    for part in (slice(0, 6), slice(6, 12)):
        real, fake = critic(x[part]), critic(x_fake[part])
        x_hat = (t[part, None, None, None] * (x[part] - x_fake[part]) + x_fake[part])[:few].requires_grad_()
        (slope,) = torch.autograd.grad(critic(x_hat).sum(), x_hat, create_graph=True)
        norm = slope.flatten(1).norm(dim=1)
        excess = (norm - 1 if kind == "two-sided" else torch.relu(norm - 1)).pow(2).mean()
        distances.append((real - fake).mean().item())
        norms.append(norm.mean().item())
        penalties.append(excess.item())
        optimizers[1].zero_grad()
        (fake.mean() - real.mean() + 4.0 * excess).backward()
        optimizers[1].step()
    optimizers[0].zero_grad()
    loss = -critic(generator(z[:6])).mean()
    loss.backward()
    optimizers[0].step()
    assert (norms[0] > 1) == (steepness > 1), "slopes on the side of 1 that this case is about"
    expected = {"distance": distances, "gradient_norm": norms, "penalty": penalties, "generator": [loss.item()]}
    assert losses.keys() == expected.keys()
    for name, values in expected.items():
        assert losses[name].item() == pytest.approx(np.mean(values), rel=1e-4, abs=1e-6), name
    for ours, by_hand in ((step.critic, critic), (step.generator, generator)):
        for a, b in zip(ours.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


def test_fewer_points_leave_the_penalty_right_on_average():
    """With slopes that differ between examples, the mean over shares of fresh noise is the whole's."""
    x = torch.rand(12, *SHAPE) * torch.linspace(0.1, 1, 12).view(-1, 1, 1, 1)
    step = make_step(n_critic=1, penalty_share=0.25, learning_rate=1e-12, critic_rate=1e-12)
    with torch.no_grad():
        step.critic[-2].weight *= 40
    torch.manual_seed(0)
    whole = make_step(n_critic=1, learning_rate=1e-12, critic_rate=1e-12)
    for mine, its in ((whole.critic, step.critic), (whole.generator, step.generator)):
        mine.load_state_dict(its.state_dict())
    order = torch.Generator().manual_seed(1)
    few, all_of_them = (
        torch.stack([each((x[torch.randperm(12, generator=order)],))["penalty"] for _ in range(150)])
        for each in (step, whole)
    )
    error = (few.var() / 150 + all_of_them.var() / 150).sqrt()
    assert few.std() > all_of_them.std(), "fewer points, more noise"
    assert abs(few.mean() - all_of_them.mean()) < 4 * error


def test_muon_without_momentum_moves_both_networks():
    step = make_step(optimizer=functools.partial(optim.Muon, momentum=0.0), critic_rate=1e-2)
    x = 0.1 * torch.rand(60, *SHAPE)  # far from what the generator begins with
    before = weights(step.critic), weights(step.generator)
    first = [step((x,))["distance"] for _ in range(12)]
    assert max(first[1:]) > max(0, first[0])
    after = weights(step.critic) + weights(step.generator)
    assert all((a != b).any() for a, b in zip(before[0] + before[1], after, strict=True))
    assert step.critic_optimizer.param_groups[0]["lr"] < 1e-2, "falls as Adam's would"


def test_the_critic_learns_to_tell_and_the_generator_to_follow():
    step, x = make_step(learning_rate=1e-9, critic_rate=1e-2), 0.1 * torch.rand(60, *SHAPE)
    first = step((x,))["distance"]
    for _ in range(3):
        last = step((x,))
    assert last["distance"] > max(0, first), "the sign: a better critic estimates a larger distance"
    before = last["generator"]
    follower = make_step(learning_rate=1e-2, critic_rate=1e-9)
    follower.critic.load_state_dict(step.critic.state_dict())
    for _ in range(8):
        after = follower((x,))["generator"]
    assert after < before, "the generator must climb the critic's scores"


def test_the_critic_is_judged_in_training_mode_and_its_weights_are_free_again():
    step = make_step()
    step.critic.eval(), step.generator.eval()
    step((torch.rand(6, *SHAPE),))
    assert step.generator.training and step.critic.training
    assert all(parameter.requires_grad for parameter in step.critic.parameters())


@pytest.mark.parametrize("frozen", ["learning_rate", "critic_rate"])
def test_a_network_without_a_rate_stands_still(frozen):
    step = make_step(**{"learning_rate": 1e-2, "critic_rate": 1e-2, frozen: 0.0})
    before = weights(step.generator), weights(step.critic)
    step((torch.rand(6, *SHAPE),))
    moved = [
        not all(torch.equal(a, b) for a, b in zip(old, weights(net), strict=True))
        for old, net in zip(before, (step.generator, step.critic), strict=True)
    ]
    assert moved == [frozen != "learning_rate", frozen != "critic_rate"]


def test_the_average_takes_part_in_batch_norms_statistics_slowly_too():
    step, x = make_step(), torch.rand(6, *SHAPE)
    step((x,))
    first = step.ema.module[0][2].running_mean.clone()
    step((x,))
    new = step.generator[0][2].running_mean
    torch.testing.assert_close(step.ema.module[0][2].running_mean, 0.9 * first + 0.1 * new)
    assert not torch.allclose(first, new)


def test_weights_fixed_on_purpose_stay_fixed():
    step = make_step()
    step.critic[0].bias.requires_grad_(False)
    step((torch.rand(6, *SHAPE),))
    assert not step.critic[0].bias.requires_grad and step.critic[0].weight.requires_grad


def test_both_optimizers_are_adam_without_momentum():
    step = make_step()
    for optimizer in (step.generator_optimizer, step.critic_optimizer):
        assert isinstance(optimizer, torch.optim.Adam)
        assert optimizer.param_groups[0]["betas"] == (0.0, 0.9)


def test_rates_fall_linearly_to_zero():
    step, rates = make_step(), []
    for _ in range(10):
        rates.append(step.critic_optimizer.param_groups[0]["lr"])
        step((torch.rand(6, *SHAPE),))
    assert rates == pytest.approx([1e-3 * (1 - done / 10) for done in range(10)])
    assert step.generator_optimizer.param_groups[0]["lr"] == 0


def test_the_average_follows_the_generator_slowly():
    step = make_step(learning_rate=0.1)
    step((torch.rand(6, *SHAPE),))
    first = weights(step.ema.module)
    step((torch.rand(6, *SHAPE),))
    for old, average, new in zip(first, step.ema.module.parameters(), step.generator.parameters(), strict=True):
        assert torch.allclose(average, 0.9 * old + 0.1 * new, atol=1e-5)
    # Samples are drawn in evaluation mode: batch norm's own averages must follow, too.
    averages = {name: value for name, value in step.ema.module.named_buffers() if name.endswith("running_var")}
    assert averages and all(not torch.equal(value, torch.ones_like(value)) for value in averages.values())


def test_low_precision_leaves_the_penalty_in_float32():
    step, seen = make_step(amp=torch.bfloat16), []
    step.critic[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = step((torch.rand(6, *SHAPE),))
    # For each of three updates real and fake, then the penalty; once for the generator.
    assert seen == [torch.bfloat16, torch.float32] * 3 + [torch.bfloat16]
    assert all(value.dtype == torch.float32 for value in losses.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "both"}, "kind='both'"),
        ({"n_critic": 0}, "n_critic=0"),
        ({"penalty_weight": -1.0}, "penalty_weight=-1.0"),
        ({"penalty_share": 0.0}, "penalty_share=0.0"),
        ({"penalty_share": 1.1}, "penalty_share=1.1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_step(**options)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="batch of 7 cannot be divided among n_critic=3"):
        make_step()((torch.rand(7, *SHAPE),))


def test_grey_images_into_a_colour_critic_are_refused():
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\), but the generator makes \(3, 8, 8\)"):
        make_step()((torch.rand(6, 1, 8, 8),))


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ValueError, match="batch_size=12: choose 1 to 6"):
        train.Batches(torch.zeros(6, *SHAPE), batch_size=12)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    images = (torch.rand(20, *SHAPE) * 255).byte()

    def run(kill_at=None):
        torch.manual_seed(0)
        step = make_step()
        call, count = step.__class__.__call__, 0

        class Killed(wgan.WGANStep):
            def __call__(self, batch):
                nonlocal count
                count += 1
                if count == kill_at:
                    raise KeyboardInterrupt
                return call(self, batch)

        step.__class__ = Killed
        batches = train.Batches(images, batch_size=6, drop_last=True)
        train.fit(step, batches, 10, checkpoint=tmp_path / "run", checkpoint_every=3)
        return weights(step.ema.module)

    with pytest.raises(KeyboardInterrupt):
        run(kill_at=8)
    resumed = run()
    for path in tmp_path.iterdir():
        path.unlink()
    assert all(torch.equal(a, b) for a, b in zip(resumed, run(), strict=True))


def test_turned_codes_are_standard_normal_and_as_far_as_asked():
    torch.manual_seed(0)
    z, other = torch.randn(2, 20_000, 50)
    turned = wgan.turn(z, other, wgan.turning_cosine(7.0, 50))
    assert ((turned - z).square().sum(1).mean() ** 0.5).item() == pytest.approx(7.0, rel=0.01)
    torch.testing.assert_close(turned.var(0), torch.ones(50), atol=0.06, rtol=0)
    assert wgan.turning_cosine(100.0, 50) == -1


def test_the_overshoot_solves_its_equations():
    weight, distance = 10.0, np.array([0.0, 0.5, 30.0])
    slope = 1 + distance / (2 * weight)
    np.testing.assert_allclose(wgan.overshoot(slope * distance, weight), slope)
    assert wgan.overshoot(np.array([-1.0]), weight) == 1


def test_crosstalk_is_relative_to_the_gradient_of_one_score_alone():
    """fᵢ = a·xᵢ + b·Σⱼ xⱼ over N examples: the summed scores' gradient is a + N b where a + b is right."""
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.5])
    found = wgan.crosstalk(lambda x: x @ a + (x @ b).sum(), torch.randn(5, 2))
    assert found == pytest.approx(4 * 0.5 / (9 + 0.25) ** 0.5)


def test_both_networks_run_in_low_precision_where_it_is_asked_for():
    step, seen = make_step(amp=torch.bfloat16), []
    step.generator[0][0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    step((torch.rand(6, *SHAPE),))
    assert seen == [torch.bfloat16] * 2, "for the critic's updates, and for its own"


def test_the_papers_settings_are_the_defaults():
    """Gulrajani et al. (2017): λ = 10, five critic updates a step, the two-sided penalty, on every pair."""
    options = inspect.signature(wgan.WGANStep).parameters
    expected = {"n_critic": 5, "penalty_weight": 10.0, "penalty_share": 1.0, "kind": "two-sided", "ema_decay": 0.999}
    expected |= {"learning_rate": 2e-4, "critic_rate": None, "amp": None, "optimizer": wgan.adam}
    assert {name: options[name].default for name in expected} == expected
    step = wgan.WGANStep(nn.Linear(2, 2), Linear(torch.ones(2)), 2, 10, learning_rate=0.3)
    assert [o.param_groups[0]["lr"] for o in (step.generator_optimizer, step.critic_optimizer)] == [0.3, 0.3]


def test_no_penalty_may_be_asked_for_and_the_losses_keep_no_graphs():
    step, x = make_step(penalty_weight=0.0, learning_rate=0.0), torch.rand(6, *SHAPE)
    losses = step((x,))
    assert losses["penalty"] > 0 and not any(value.requires_grad for value in losses.values())


def test_a_step_names_all_that_it_changes():
    step = make_step()
    parts = dict(step.parts)
    assert [parts.pop(name) for name in ("generator_scheduler", "critic_scheduler")] == step.schedulers
    expected = ("generator", "critic", "generator_optimizer", "critic_optimizer", "ema")
    assert all(parts.pop(name) is getattr(step, name) for name in expected) and not parts


def test_the_distance_takes_whole_examples_and_the_square_root_of_squares():
    x, y = torch.zeros(1, 2, 2), torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    assert wgan.wasserstein(x, y) == pytest.approx(5)
    two = torch.tensor([[0.0], [10.0]])
    assert wgan.wasserstein(two, two.flip(0) + torch.tensor([[1.0], [3.0]])) == pytest.approx(2), "a mean, not a sum"


def test_a_turn_by_nothing_stays_and_by_a_right_angle_is_the_other_code():
    z, other = torch.randn(2, 3, 4)
    torch.testing.assert_close(wgan.turn(z, other, 1.0), z)
    torch.testing.assert_close(wgan.turn(z, other, 0.0), other)
    assert wgan.turning_cosine(2.0, 8) == pytest.approx(1 - 4 / 16)


def test_slopes_can_be_asked_for_anywhere_and_leave_what_they_were_asked_about_alone():
    critic, x = Linear(torch.tensor([3.0, 4.0])), torch.rand(5, 2)
    with torch.no_grad():
        assert wgan.gradient_norm(critic, x).tolist() == pytest.approx([5.0] * 5)
        assert wgan.crosstalk(critic, x) == pytest.approx(0, abs=1e-6)
    assert not x.requires_grad and critic.a.grad is None
    assert not wgan.gradient_norm(critic, x).requires_grad
    assert wgan.gradient_norm(critic, x, differentiable=True).requires_grad


def test_a_step_leaves_its_batch_alone():
    step, x = make_step(), torch.rand(6, *SHAPE)
    before = x.clone()
    step((x,))
    assert torch.equal(x, before) and not x.requires_grad


# --- a critic that runs ahead ----------------------------------------------------------------------


def endless_images():
    draws = torch.Generator().manual_seed(3)
    while True:
        yield (0.1 * torch.rand(12, *SHAPE, generator=draws), torch.zeros(12))


def test_a_critic_that_runs_ahead_finds_a_larger_distance_and_the_step_stays_as_it_is():
    step = make_step(learning_rate=1e-3, critic_rate=1e-2)
    for _, batch in zip(range(2), endless_images(), strict=False):
        step(batch)
    before = copy.deepcopy([part.state_dict() for part in step.parts.values()])
    ahead = step.caught_up(endless_images(), 30)
    after = [part.state_dict() for part in step.parts.values()]
    assert all(str(a) == str(b) for a, b in zip(before, after, strict=True))
    assert not ahead.training and step.critic.training
    x = next(endless_images())[0]
    x_fake = gan.sample(nn.Sequential(step.ema, Logit()), 12, 6, "cpu")
    with torch.no_grad():
        estimates = [(critic(x).mean() - critic(x_fake).mean()).item() for critic in (step.critic, ahead)]
    assert estimates[1] > max(0, 2 * estimates[0])


class Logit(nn.Module):
    def forward(self, x):
        return torch.logit(x, 1e-6)


def test_a_critic_that_runs_ahead_meets_the_averaged_generator_and_slows_down():
    step, rates, seen = make_step(critic_rate=0.1), [], []
    step((torch.rand(6, *SHAPE),))
    step.ema.register_forward_hook(lambda module, inputs, output: seen.append((module.training, len(output))))
    update = wgan.WGANStep._update_critic

    def watched(self, x, x_fake, t):
        rates.append(self.critic_optimizer.param_groups[0]["lr"])
        return update(self, x, x_fake, t)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wgan.WGANStep, "_update_critic", watched)
        step.caught_up(endless_images(), 4)
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert seen == [(False, 12)] * 4


def test_no_further_updates_give_the_critic_as_it_is():
    step = make_step()
    copied = step.caught_up(endless_images(), 0)
    assert copied is not step.critic
    assert all(torch.equal(a, b) for a, b in zip(weights(copied), weights(step.critic), strict=True))
