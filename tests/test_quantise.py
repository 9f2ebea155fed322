import pytest
import torch
from torch import nn

from lib import nets
from lib.quantise import quantise


def rebuilt(network, found):
    """The network with its weights put back from their eight bits."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights, rows = found.weights.float(), 0
    with torch.no_grad():
        for layer in layers:
            count = layer.weight.numel()
            scale = found.scale[rows : rows + layer.out_features, None]
            layer.weight.copy_(weights[:count].view_as(layer.weight) * scale)
            layer.bias.copy_(found.bias[rows : rows + layer.out_features])
            weights, rows = weights[count:], rows + layer.out_features
    return network


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_weight_is_off_by_at_most_half_a_level_of_its_row(seed):
    torch.manual_seed(seed)
    network = nets.mlp_encoder((1, 8, 8), [16, 8], 4)
    before = [p.clone() for p in network.parameters()]
    found = quantise(network)
    after = list(rebuilt(network, found).parameters())
    assert found.sizes == [64, 16, 8, 4]
    assert found.weights.dtype == torch.int8 and found.weights.abs().max() == 127
    for old, new in zip(before, after, strict=True):
        level = old.abs().amax(-1, keepdim=True) / 127 if old.ndim == 2 else 0
        assert ((old - new).abs() <= 0.5 * level + 1e-7).all()


def test_the_rebuilt_network_gives_nearly_the_same_images():
    torch.manual_seed(0)
    network = nets.mlp_decoder(2, [40, 80], (1, 28, 28))
    z = torch.randn(100, 2)
    before = nets.pixels(network(z))
    after = nets.pixels(rebuilt(network, quantise(network))(z))
    assert (before - after).abs().max() < 0.01
    assert not torch.equal(before, after)


def test_a_row_of_zeros_stays_zero():
    network = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(network[0].weight)
    found = quantise(network)
    assert not found.weights.any() and found.scale.isfinite().all()


def test_other_layers_are_refused_by_name():
    network = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    with pytest.raises(ValueError, match="Tanh"):
        quantise(network)
