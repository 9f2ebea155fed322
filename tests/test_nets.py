import pytest
import torch
from torch import nn

from lib import nets


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_networks_fit_their_images(shape):
    x = torch.rand(4, *shape)
    assert nets.mlp_encoder(shape, [16, 8], 6)(x).shape == (4, 6)
    assert nets.mlp_decoder(5, [8, 16], shape)(torch.randn(4, 5)).shape == x.shape
    assert nets.conv_encoder(shape, 4, 6)(x).shape == (4, 6)
    assert nets.conv_decoder(5, 4, shape)(torch.randn(4, 5)).shape == x.shape
    assert nets.generator(5, 4, shape)(torch.randn(4, 5)).shape == x.shape
    assert nets.discriminator(shape, 4)(x).shape == (4,)
    assert nets.Classifier(shape, 7, 4)(x).shape == (4, 7)


@pytest.mark.parametrize("shape", [(1, 30, 30), (1, 28, 32)])
def test_sides_that_cannot_be_halved_twice_are_refused(shape):
    with pytest.raises(ValueError, match="divisible by 4"):
        nets.conv_decoder(5, 4, shape)


def test_an_mlp_bends_between_its_layers_and_not_at_its_end():
    network = nets.mlp([3, 4, 5, 2])
    assert [type(layer) for layer in network] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


def test_the_discriminator_judges_each_image_alone():
    judge = nets.discriminator((1, 28, 28), 4).train()
    x = torch.rand(6, 1, 28, 28)
    assert torch.allclose(judge(x)[:2], judge(x[:2]), atol=1e-6)


def test_pixels_are_float32_in_the_unit_interval():
    x = nets.pixels(torch.tensor([-50.0, 0.0, 50.0], dtype=torch.bfloat16))
    assert x.dtype == torch.float32
    assert x.tolist() == pytest.approx([0, 0.5, 1])


def test_parameters_that_stand_still_are_not_counted():
    network = nets.mlp([3, 4, 2])
    assert nets.count_parameters(network) == 3 * 4 + 4 + 4 * 2 + 2
    network[0].requires_grad_(False)
    assert nets.count_parameters(network) == 4 * 2 + 2
