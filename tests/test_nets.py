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


# --- chapter 3 -------------------------------------------------------------------------------------


def test_pixel_bias_begins_with_the_best_constant_image():
    mean = torch.tensor([[[0.0, 0.25], [0.5, 1.0]]])
    decoder = nn.Sequential(nets.mlp_decoder(3, [4], (1, 2, 2)), nets.PixelBias(mean))
    with torch.no_grad():
        decoder[0][-2].weight.zero_()
        decoder[0][-2].bias.zero_()
    torch.testing.assert_close(nets.pixels(decoder(torch.randn(2, 3))), mean.clamp(2e-3, 1 - 2e-3).expand(2, 1, 2, 2))
    assert nets.count_parameters(decoder[1]) == 4


def test_the_assignments_networks_take_28_pixels_only():
    shape = (1, 28, 28)
    assert nets.pooled_encoder(shape, 20)(torch.rand(2, *shape)).shape == (2, 20)
    assert nets.upsampled_decoder(10, shape)(torch.randn(2, 10)).shape == (2, *shape)
    for build in (lambda s: nets.pooled_encoder(s, 20), lambda s: nets.upsampled_decoder(10, s)):
        with pytest.raises(ValueError, match="28×28"):
            build((3, 32, 32))


def test_the_first_layer_of_the_decoder_is_the_assignments_padded_convolution():
    """A 5×5 convolution of one pixel padded by 4 is a transposed convolution with the kernel turned by 180°."""
    transposed, padded = nn.ConvTranspose2d(6, 3, 5), nn.Conv2d(6, 3, 5, padding=4)
    with torch.no_grad():
        padded.weight.copy_(transposed.weight.flip(2, 3).transpose(0, 1))
        padded.bias.copy_(transposed.bias)
    x = torch.randn(4, 6, 1, 1)
    torch.testing.assert_close(transposed(x), padded(x))


def test_convolutional_networks_take_another_activation():
    encoder = nets.conv_encoder((1, 28, 28), 2, 6, nn.ELU)
    decoder = nets.conv_decoder(3, 2, (1, 28, 28), nn.ELU)
    for network in (encoder, decoder):
        assert sum(isinstance(layer, nn.ELU) for layer in network) == 3
        assert not any(isinstance(layer, nn.ReLU) for layer in network)
