import copy

import pytest
import torch
from torch import nn

from lib import optim


@pytest.mark.parametrize("make", [optim.adam_one_cycle, optim.muon_one_cycle])
def test_one_cycle_rises_to_its_rate_and_ends_near_zero_after_the_last_step(make):
    model = nn.Linear(2, 1)
    step = make(model, lambda x: {"loss": model(x).sum()}, 40, 0.1)
    rates, momenta = [], []
    for _ in range(40):
        group = step.optimizer.param_groups[0]
        rates.append(group["lr"])
        momenta.append(group["betas"][0] if "betas" in group else group["momentum"])
        step((torch.ones(1, 2),))
    assert momenta[0] == pytest.approx(0.95) and min(momenta) == pytest.approx(0.85, abs=0.005)
    assert momenta.index(min(momenta)) == rates.index(max(rates))
    assert max(rates) == pytest.approx(0.1, rel=0.02)
    assert step.optimizer.param_groups[0]["lr"] < 1e-4 * 0.1


# --- Muon ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 6), (4, 30), (30, 4), (1, 9)])
def test_orthogonalised_matrices_keep_their_vectors_and_lose_their_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = optim.orthogonal(matrix)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ found @ vh.T
    values = inside.diagonal()
    assert values.min() > 0.6 and values.max() < 1.25
    torch.testing.assert_close(inside, torch.diag(values), atol=1e-9, rtol=0)


@pytest.mark.parametrize("shape", [(64, 576), (576, 64), (48, 27), (32, 32), (1, 40), (40, 1)])
def test_orthogonalisation_is_the_published_iteration(shape):
    """What is done on the small square matrix equals the iteration on the whole one, in float32, too."""
    generator = torch.Generator().manual_seed(0)
    # Singular values over four decades, as gradients have them.
    matrix = torch.randn(shape, generator=generator) * torch.logspace(0, -4, shape[1])
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
    torch.testing.assert_close(optim.orthogonal(matrix).double(), x, atol=1e-3, rtol=0)


def test_muon_steps_down_and_as_far_as_the_rate_says():
    weight = nn.Parameter(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    gradient = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    before = weight.detach().clone()
    weight.grad = gradient
    optim.Muon([weight], lr=0.1).step()
    moved = weight.detach() - before
    assert (moved * gradient).sum() < 0
    values = torch.linalg.svdvals(moved)
    assert values.min() > 0.06 and values.max() < 0.125
    weight.grad = 1000 * gradient
    again = weight.detach().clone()
    optim.Muon([weight], lr=0.1).step()
    torch.testing.assert_close(weight.detach() - again, moved, msg="the gradient's size does not count")


@pytest.mark.parametrize("shape", [(8, 2), (2, 8)])
@pytest.mark.parametrize("beta", [0.0, 0.95])
def test_muons_second_step_looks_ahead_of_its_momentum(shape, beta):
    """Nesterov: the direction is the gradient moved towards the mean of gradients, by as much as the mean remembers."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(2, *shape, generator=generator) * torch.tensor([1.0, 0.2]).view(2, 1, 1)
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = optim.Muon([weight], lr=0.1, momentum=beta)
    for gradient in gradients:
        before, weight.grad = weight.detach().clone(), gradient
        optimizer.step()
    mean = beta * (1 - beta) * gradients[0] + (1 - beta) * gradients[1]
    ahead = (1 - beta) * gradients[1] + beta * mean
    longest = 2.0 if shape == (8, 2) else 1.0  # √(8/2): a step of norm 1 in the larger space
    torch.testing.assert_close(weight.detach() - before, -0.1 * longest * optim.orthogonal(ahead))


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_muon_leaves_the_precision_of_products_as_it_was(monkeypatch, before):
    matmul = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    seen = []

    def looked(x):
        seen.extend(backend.fp32_precision for backend in matmul)
        return x

    monkeypatch.setattr(optim, "orthogonal", looked)
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    torch.set_float32_matmul_precision(before)
    try:
        outside = [backend.fp32_precision for backend in matmul]
        optim.Muon([weight], lr=0.1).step()
        assert seen == ["ieee", optim._cpu_precision()]
        assert [backend.fp32_precision for backend in matmul] == outside
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("wide", [32, 128, 256])
def test_muons_products_have_whole_factors(wide):
    """A number that bfloat16 and TF32 cannot hold comes through, whichever library multiplies."""
    torch.manual_seed(0)
    a, b = torch.full((wide, wide), 1 + 2.0**-20), torch.randn(wide, 9 * wide)
    with optim._unrounded_products():
        assert torch.equal(a @ torch.eye(wide), a)
        found, square = b @ b.T, torch.addmm(a, a, a, beta=-4.775, alpha=2.0315)
    torch.testing.assert_close(found.double(), b.double() @ b.double().T, atol=1e-4 * wide, rtol=1e-5)
    expected = torch.addmm(a.double(), a.double(), a.double(), beta=-4.775, alpha=2.0315)
    torch.testing.assert_close(square.double(), expected, atol=0, rtol=1e-5)


@pytest.mark.parametrize("rounds", [True, False])
def test_a_cpu_that_would_round_factors_is_not_allowed_to(monkeypatch, rounds):
    monkeypatch.setattr(torch, "equal", lambda *_: not rounds)
    before = torch.backends.mkldnn.matmul.fp32_precision
    optim._cpu_precision.cache_clear()
    try:
        assert optim._cpu_precision() == ("ieee" if rounds else "bf16")
        assert torch.backends.mkldnn.matmul.fp32_precision == before
    finally:
        optim._cpu_precision.cache_clear()


@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (3, 8, 2, 2), (4, 5, 1, 1), (8, 6, 1, 3)])
def test_muon_moves_a_convolution_alike_however_it_lies_in_memory(shape):
    torch.manual_seed(0)
    start, gradients = torch.randn(shape), torch.randn(3, *shape)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(start.clone(memory_format=layout))
        optimizer = optim.Muon([weight], lr=0.1, weight_decay=0.1)
        for gradient in gradients:
            weight.grad = gradient.clone(memory_format=layout)
            optimizer.step()
        assert weight.stride() == start.clone(memory_format=layout).stride()
        found.append(weight.detach())
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_muon_trains_convolutions_and_biases_and_leaves_what_has_no_gradient():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
    idle = nn.Parameter(torch.ones(2, 2))
    x, y = torch.randn(8, 1, 8, 8), torch.randn(8, 1, 4, 4)
    optimizer = optim.Muon([*network.parameters(), idle], lr=0.02)
    start = [parameter.detach().clone() for parameter in network.parameters()]
    losses = []
    for _ in range(40):
        loss = ((network(x) - y) ** 2).mean()
        network.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all((now != then).any() for now, then in zip(network.parameters(), start, strict=True))
    assert (idle == 1).all()


def test_muons_decay_shrinks_matrices_and_leaves_vectors():
    matrix, vector = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))
    before = matrix.detach().clone(), vector.detach().clone()
    matrix.grad, vector.grad = torch.zeros(4, 3), torch.zeros(4)
    optim.Muon([matrix, vector], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(matrix.detach(), 0.95 * before[0])
    assert torch.equal(vector.detach(), before[1])


def test_a_muon_step_goes_on_from_its_parts():
    x, y = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0)).unbind()

    def made():
        torch.manual_seed(0)
        model = nn.Linear(6, 6)
        return model, optim.muon_one_cycle(model, lambda x, y: {"loss": ((model(x) - y) ** 2).mean()}, 10, 0.05)

    (model, step), (other, later) = made(), made()
    for _ in range(5):
        step((x, y))
    states = {name: copy.deepcopy(part.state_dict()) for name, part in step.parts.items()}
    for name, part in later.parts.items():
        part.load_state_dict(states[name])
    for _ in range(5):
        step((x, y))
        later((x, y))
    assert torch.equal(model.weight, other.weight)


@pytest.mark.parametrize("make", [optim.adam_one_cycle, optim.muon_one_cycle])
def test_weights_that_are_fixed_are_left_out_and_options_reach_the_step(make):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    step = make(model, lambda x: {"loss": model(x).sum()}, 10, 0.1, clip=0.5, amp=torch.bfloat16)
    assert [id(weight) for group in step.optimizer.param_groups for weight in group["params"]] == [
        id(weight) for weight in model[1].parameters()
    ]
    assert step.clip == 0.5 and step.amp == torch.bfloat16 and step.parts["scheduler"] is step.scheduler
    assert isinstance(step.optimizer, optim.Muon if make is optim.muon_one_cycle else torch.optim.Adam)


def test_muon_has_the_papers_momentum_and_no_decay_unless_asked():
    group = optim.Muon([nn.Parameter(torch.ones(2, 2))], lr=0.1).param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.95, 0.0)


def test_nothing_becomes_nothing():
    assert torch.equal(optim.orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_muon_moves_a_vector_as_one_row_of_norm_one():
    """A bias's orthogonal matrix is its direction, of a length that the iteration brings to about 1."""
    bias, gradient = nn.Parameter(torch.zeros(6)), torch.randn(6)
    bias.grad = gradient
    optim.Muon([bias], lr=0.1, momentum=0.0).step()
    assert torch.cosine_similarity(-bias.detach(), gradient, dim=0).item() == pytest.approx(1)
    assert 0.06 < bias.detach().norm() < 0.125


def test_muon_reads_a_convolution_as_a_matrix_of_its_outputs():
    weight, gradient = nn.Parameter(torch.zeros(4, 3, 2, 2)), torch.randn(4, 3, 2, 2)
    weight.grad = gradient
    optim.Muon([weight], lr=0.1, momentum=0.0).step()
    torch.testing.assert_close(weight.detach().view(4, 12), -0.1 * optim.orthogonal(gradient.view(4, 12)))
