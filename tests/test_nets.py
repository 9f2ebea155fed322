import pytest
import torch
import torch.nn.functional as F
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


@pytest.mark.parametrize("blocks", [1, 3])
def test_residual_blocks_come_behind_each_convolution_and_begin_as_the_network_without_them(blocks):
    x, z = torch.rand(4, 1, 28, 28), torch.randn(4, 5)
    for make, given in (
        (lambda n: nets.conv_encoder((1, 28, 28), 4, 6, nn.ELU, n), x),
        (lambda n: nets.conv_decoder(5, 4, (1, 28, 28), nn.ELU, n), z),
    ):
        plain, deep = make(0), make(blocks)
        kinds = [type(layer) for layer in deep]
        assert kinds.count(nets.ResidualBlock) == 2 * blocks
        weights = [layer for layer in deep if not isinstance(layer, nets.ResidualBlock)]
        for ours, theirs in zip(plain, weights, strict=True):
            ours.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(deep(given), plain(given))


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


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1.2e-7), (torch.float64, 1e-15), (torch.bfloat16, 4e-3)])
def test_elu_is_torchs_forwards_and_backwards(dtype, atol):
    x = torch.cat([torch.linspace(-30, 30, 601), torch.tensor([0.0, -0.0, 1e-4, -1e-4])]).to(dtype)
    both = []
    for function in (nets.ELU(), nn.ELU()):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.backward(torch.linspace(1, 2, len(x), dtype=dtype))
        both.append((y.detach(), leaf.grad))
    for ours, theirs in zip(*both, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=2**-8 if dtype is torch.bfloat16 else 1e-6)
    assert nets.ELU()(torch.tensor([float("nan")])).isnan(), "a broken number stays broken"


def test_elu_passes_a_numerical_check_of_its_gradient():
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: nets.ELU()(x), x)


def test_convolutional_networks_take_another_activation():
    encoder = nets.conv_encoder((1, 28, 28), 2, 6, nn.ELU)
    decoder = nets.conv_decoder(3, 2, (1, 28, 28), nn.ELU)
    for network in (encoder, decoder):
        assert sum(isinstance(layer, nn.ELU) for layer in network) == 3
        assert not any(isinstance(layer, nn.ReLU) for layer in network)


# --- deconv_decoder: the decoders of chapter 2 -----------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "shape"),
    [((8, 4), (1, 28, 28)), ((8, 4, 2), (1, 28, 28)), ((8, 4), (3, 32, 32)), ((4,), (1, 10, 10))],
)
@pytest.mark.parametrize("closing", [False, True])
def test_a_deconv_decoder_makes_the_shape_asked_for(channels, shape, closing):
    assert nets.deconv_decoder(5, channels, shape, closing)(torch.randn(3, 5)).shape == (3, *shape)


def test_it_holds_as_many_numbers_as_the_reports_layers():
    """Report 001's layers, and report 003's with 512-256-128, counted from their own descriptions."""
    first = sum(p.numel() for p in nets.deconv_decoder(100, (128, 64), (1, 28, 28), closing=True).parameters())
    # A 7×7 transposed convolution of a 1×1 map is a linear layer, but has one bias a channel, not one a pixel;
    # theirs also has biases in front of batch norm, which cancels them.
    theirs = nn.Sequential(
        nn.ConvTranspose2d(100, 128, 7),
        nn.BatchNorm2d(128),
        nn.ConvTranspose2d(128, 64, 4, 2, 1),
        nn.BatchNorm2d(64),
        nn.ConvTranspose2d(64, 1, 4, 2, 1),
        nn.Linear(784, 784),
    )
    assert first == sum(p.numel() for p in theirs.parameters()) + 128 * 48 - 64
    second = nets.deconv_decoder(128, (512, 256, 128), (1, 28, 28))
    assert second[0].out_features == 8192


def test_the_crop_is_what_a_padded_1x1_transposed_convolution_does():
    x = torch.randn(2, 1, 32, 32)
    closing = nn.ConvTranspose2d(1, 1, 1, padding=2, bias=False)
    torch.testing.assert_close(closing(x), closing.weight.item() * nn.ZeroPad2d(-2)(x))


def test_the_surplus_is_cropped_equally_on_every_side():
    network = nets.deconv_decoder(5, (8, 4, 2), (1, 28, 28)).eval()
    z = torch.randn(2, 5)
    torch.testing.assert_close(network(z), network[:-1](z)[..., 2:-2, 2:-2])


def test_a_generator_is_the_dcgan_decoder_of_two_doublings():
    found, expected = nets.generator(5, 4, (1, 28, 28)), nets.deconv_decoder(5, [16, 8], (1, 28, 28))
    assert str(found) == str(expected)


def kinds(network):
    """The layers of a network that have no weights of their own to give them away, and batch norms."""
    plain = (nn.ReLU, nn.LeakyReLU, nn.BatchNorm2d, nn.Dropout, nn.MaxPool2d, nets.Leaky)
    return [type(layer).__name__ for layer in network.modules() if isinstance(layer, plain)]


def test_no_activation_norm_or_dropout_is_missing():
    shape = (1, 28, 28)
    assert kinds(nets.conv_encoder(shape, 4, 6)) == ["ReLU"] * 3
    assert kinds(nets.conv_decoder(5, 4, shape)) == ["ReLU"] * 3
    assert kinds(nets.deconv_decoder(5, (8, 4), shape)) == ["BatchNorm2d", "ReLU"] * 2
    assert kinds(nets.discriminator(shape, 4)) == ["LeakyReLU"] * 3
    assert kinds(nets.conv_critic(shape, [4, 8])) == ["Leaky"] * 2
    assert kinds(nets.Classifier(shape, 7, 4)) == ["ReLU", "MaxPool2d"] * 2 + ["Dropout", "ReLU"]
    slopes = {layer.negative_slope for layer in nets.discriminator(shape, 4) if isinstance(layer, nn.LeakyReLU)}
    assert slopes == {0.2}


@pytest.mark.parametrize("shape", [(1, 28, 32), (1, 27, 27), (1, 2, 2)])
def test_images_that_it_cannot_make_are_refused(shape):
    with pytest.raises(ValueError, match=f"{shape[1]}×{shape[2]}"):
        nets.deconv_decoder(5, (8, 4, 2), shape)


def test_codes_and_channels_must_have_a_size():
    with pytest.raises(ValueError, match="latent_dim=0"):
        nets.deconv_decoder(0, (8,), (1, 28, 28))
    for channels in ((), (8, 0)):
        with pytest.raises(ValueError, match="channels"):
            nets.deconv_decoder(5, channels, (1, 28, 28))


# --- chapter 4 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_a_critic_scores_each_image_and_pads_what_cannot_be_halved(shape):
    critic = nets.conv_critic(shape, [4, 8, 8])
    assert critic(torch.rand(5, *shape)).shape == (5,)
    assert critic[-2].in_features == 8 * 4 * 4


@pytest.mark.parametrize(("shape", "channels"), [((1, 27, 27), [4, 8]), ((1, 28, 32), [4]), ((1, 8, 8), [])])
def test_a_critic_refuses_what_it_cannot_halve(shape, channels):
    with pytest.raises(ValueError, match=r"make a square|give positive numbers"):
        nets.conv_critic(shape, channels)


def test_leaky_relu_is_torchs_through_both_derivatives():
    torch.manual_seed(0)
    x = torch.randn(40, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(40, dtype=torch.float64, requires_grad=True)
    found = []
    for activation in (nets.Leaky(0.2), torch.nn.LeakyReLU(0.2)):
        y = activation(x * weight).sin()
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        found.append((y, slope, *torch.autograd.grad(slope.square().sum(), (x, weight))))
    assert all(torch.allclose(ours, theirs) for ours, theirs in zip(*found, strict=True))


@pytest.mark.parametrize("side", [8, 9])
def test_the_critics_convolution_is_torchs_through_every_derivative_a_penalty_takes(side):
    torch.manual_seed(0)
    ours = nets.CriticConv2d(3, 5, 4, stride=2, padding=1).double()
    theirs = nn.Conv2d(3, 5, 4, stride=2, padding=1).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 3, side, side, dtype=torch.float64, requires_grad=True)
    found = []
    for layer in (ours, theirs):
        y = layer(x).tanh()
        slopes = torch.autograd.grad(y.sum(), (x, *layer.parameters()), create_graph=True)
        loss = sum(slope.square().sum() for slope in slopes)
        found.append((y, *slopes, *torch.autograd.grad(loss, (x, *layer.parameters()))))
    assert all(torch.allclose(mine, other) for mine, other in zip(*found, strict=True))


def test_two_blocks_in_each_of_four_stages_are_torchvisions_resnet18_but_for_the_stem():
    import torchvision

    theirs = torchvision.models.resnet18()
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = theirs.fc = nn.Identity()
    ours = nets.small_resnet(3, 64, [2, 2, 2, 2], stem_stride=1)
    weights = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(weights)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert ours(x).shape == (2, 512)


def test_a_small_resnet_halves_the_side_and_doubles_the_channels():
    net = nets.small_resnet(3, 8, [1, 2, 1])
    shapes = []
    for block in net:
        if isinstance(block, nets.BasicBlock):
            block.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 32)
    assert shapes == [(8, 16, 16), (16, 8, 8), (16, 8, 8), (32, 4, 4)]
    for width, blocks in ((0, [1]), (8, []), (8, [1, 0])):
        with pytest.raises(ValueError, match="width"):
            nets.small_resnet(3, width, blocks)


def test_standardised_pixels_have_mean_zero_and_unit_spread():
    x = torch.rand(500, 3, 4, 4) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1)
    y = nets.Standardise(x.mean((0, 2, 3)), x.std((0, 2, 3)))(x)
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(3))


# --- the U-Net of chapter 6 ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "channels", "decoders", "patch"),
    [((3, 32, 32), (4, 6, 8), 1, 2), ((3, 32, 32), (4, 4, 6, 6, 8), 2, 1), ((1, 28, 28), (4, 6), 2, 2)],
)
def test_a_unet_gives_images_of_the_size_it_was_given(shape, channels, decoders, patch):
    network = nets.UNet(shape, channels, shape[0], decoders, patch)
    assert network(torch.rand(2, *shape)).shape == (2, decoders * shape[0], *shape[1:])
    assert len(network.encoder) == len(channels) and len(network.down) == len(channels) - 1


def test_each_decoder_of_a_unet_learns_alone_and_the_encoder_for_all():
    network = nets.UNet((3, 16, 16), (4, 6), 3, decoders=2)
    network(torch.rand(2, 3, 16, 16))[:, :3].sum().backward()
    used = [any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in network.decoders]
    assert used == [True, False]
    assert network.stem[1].weight.grad.any()


def test_each_output_of_a_unet_comes_from_its_own_decoder():
    network, x = nets.UNet((1, 8, 8), (4, 6), 2, decoders=3), torch.rand(1, 1, 8, 8)
    before = network(x)
    with torch.no_grad():
        network.decoders[1]["head"][1].bias.add_(1)
    moved = (network(x) != before).flatten(2).any(2)[0].tolist()
    assert moved == [False, False, True, True, False, False]


def test_a_unet_sees_the_whole_image_and_passes_details_by():
    network = nets.UNet((1, 16, 16), (4, 6, 8), 1, blocks=2)
    with torch.no_grad():  # blocks begin as the identity
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    x = torch.rand(1, 1, 16, 16)
    other = x.clone()
    other[..., 0, 0] += 1
    assert (network(other) != network(x))[..., -1, -1].all(), "the far corner must feel it"
    for parameter in (*network.decoders[0]["up"].parameters(), *network.down.parameters()):
        parameter.data.zero_()
    assert (network(other) != network(x)).any(), "and the skip passes it on without the bottleneck"


def test_residual_blocks_begin_as_the_identity():
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(nets.ResidualBlock(4)(x), x)


def test_a_residual_block_is_its_formula():
    block, x = nets.ResidualBlock(3), torch.randn(2, 3, 5, 5)
    nn.init.normal_(block.second.weight)
    expected = x + block.second(block.first(x.clamp(min=0)).clamp(min=0))
    torch.testing.assert_close(block(x), expected)


def test_unets_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"28×28 pixels.*divisible by 8"):
        nets.UNet((1, 28, 28), (4, 6, 8), 1, patch=2)
    for channels in ((), (4, 0)):
        with pytest.raises(ValueError, match="channels"):
            nets.UNet((1, 28, 28), channels, 1)
    with pytest.raises(ValueError, match="decoders=0"):
        nets.UNet((1, 28, 28), (4,), 1, decoders=0)


# --- every layer where it belongs ------------------------------------------------------------------


def test_the_assignments_networks_bend_where_it_says():
    shape = (1, 28, 28)
    names = ["Conv2d", "ELU", "AvgPool2d"] * 2 + ["Conv2d", "ELU", "Flatten", "Linear"]
    assert [type(layer).__name__ for layer in nets.pooled_encoder(shape, 20)] == names
    up = ["ELU", "UpsamplingBilinear2d", "ZeroPad2d", "Conv2d"]
    names = ["Linear", "ELU", "Unflatten", "ConvTranspose2d", *up, *up, "ELU", "ZeroPad2d", "Conv2d"]
    assert [type(layer).__name__ for layer in nets.upsampled_decoder(10, shape)] == names


@pytest.mark.parametrize(
    ("network", "count"),
    [
        # A convolution has out · in · kernel² + out numbers, a linear layer out · in + out.
        (lambda: nets.conv_encoder((1, 28, 28), 4, 6), 4 * 16 + 4 + 8 * 4 * 16 + 8 + 392 * 32 + 32 + 32 * 6 + 6),
        (lambda: nets.conv_decoder(5, 4, (1, 28, 28)), 5 * 32 + 32 + 32 * 392 + 392 + 8 * 4 * 16 + 4 + 4 * 16 + 1),
        (
            lambda: nets.discriminator((3, 32, 32), 4),
            3 * 4 * 16 + 4 + 4 * 8 * 16 + 8 + 8 * 16 * 9 + 16 + 16 * 64 + 1,
        ),
        (
            lambda: nets.Classifier((1, 28, 28), 7, 4),
            4 * 9 + 4 + 4 * 8 * 9 + 8 + 8 * 49 * 64 + 64 + 64 * 7 + 7,
        ),
        (lambda: nets.conv_critic((3, 32, 32), [4, 8]), 3 * 4 * 16 + 4 + 4 * 8 * 16 + 8 + 8 * 64),
        (
            lambda: nets.pooled_encoder((1, 28, 28), 20),
            32 * 9 + 32 + 64 * 32 * 9 + 64 + 256 * 64 * 25 + 256 + 256 * 20 + 20,
        ),
        (
            lambda: nets.upsampled_decoder(10, (1, 28, 28)),
            2560 + 256 + 256 * 64 * 25 + 64 + 64 * 32 * 9 + 32 + 32 * 16 * 9 + 16 + 16 * 9 + 1,
        ),
    ],
)
def test_networks_have_as_many_numbers_as_their_layers(network, count):
    assert nets.count_parameters(network()) == count


def test_an_mlp_takes_its_activation_and_its_images_as_they_are_laid_out():
    assert isinstance(nets.mlp([2, 3, 4], nn.Tanh)[1], nn.Tanh)
    x, encoder = torch.rand(2, 1, 4, 4), nets.mlp_encoder((1, 4, 4), [], 3)
    torch.testing.assert_close(encoder(x), encoder[1](x.reshape(2, 16)))
    decoder = nets.mlp_decoder(3, [], (2, 2, 4))
    z = torch.randn(5, 3)
    torch.testing.assert_close(decoder(z), decoder[0](z).view(5, 2, 2, 4))


def test_a_classifiers_logits_are_its_head_of_its_features():
    classifier = nets.Classifier((1, 8, 8), 3).eval()
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(classifier(x), classifier.head(classifier.features(x)))
    assert classifier.features[0].out_channels == 32
    assert next(layer.p for layer in classifier.features if isinstance(layer, nn.Dropout)) == 0.25


def test_a_critic_leaks_a_fifth_and_pads_alike_on_every_side():
    critic = nets.conv_critic((1, 28, 28), [4, 4, 4])
    assert {layer.slope for layer in critic if isinstance(layer, nets.Leaky)} == {0.2}
    torch.testing.assert_close(critic[0](torch.ones(1, 1, 28, 28)).sum((1, 2)), torch.ones(1, 32) * 28 * inside(32, 2))
    assert critic[-2].bias is None
    assert not any(isinstance(layer, nn.ZeroPad2d) for layer in nets.conv_critic((1, 8, 8), [4, 4]))


def inside(size, margin):
    return torch.tensor([float(margin <= place < size - margin) for place in range(size)])


def test_a_closing_layer_connects_all_pixels():
    shape = (1, 8, 8)
    network = nets.deconv_decoder(5, (4,), shape, closing=True).eval()
    open_ended, z = network[:-4], torch.randn(3, 5)
    expected = network[-2](open_ended(z).sigmoid().flatten(1)).view(3, *shape)
    torch.testing.assert_close(network(z), expected)
    assert str(nets.deconv_decoder(5, (4,), shape)) == str(open_ended), "none unless asked for"


def test_a_small_resnet_has_its_norms_activations_and_shortcuts():
    net = nets.small_resnet(3, 8, [1, 2])
    assert kinds(net[:3]) == ["BatchNorm2d", "ReLU"]
    blocks = [layer for layer in net if isinstance(layer, nets.BasicBlock)]
    assert [block.downsample is not None for block in blocks] == [False, True, False]
    assert [block.stride for block in blocks] == [1, 2, 1]
    assert kinds(blocks[1].downsample) == ["BatchNorm2d"]
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(net(x), net[:-2](x).mean((2, 3)))


def test_a_resnet_reads_images_as_they_are():
    network = nets.small_resnet(1, 4, [1, 1], stem_stride=1)
    assert network[0].weight.shape == (4, 1, 3, 3) and network[0].stride == (1, 1)
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 8)
    assert nets.small_resnet(1, 4, [1, 1])[0].stride == (2, 2)


def test_a_unet_is_its_formula():
    """Two decoders over one encoder, each: up, plus the skip of that level, then its blocks; ReLU before the head."""
    network, x = nets.UNet((1, 8, 8), (3, 4, 5), 2, decoders=2, patch=2, blocks=2), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(0, 0.3)

    def blocks(level, h):
        assert len(level) == 2
        for block in level:
            h = h + block.second(block.first(h.clamp(min=0)).clamp(min=0))
        return h

    skips = [blocks(network.encoder[0], network.stem[1](F.pixel_unshuffle(x, 2)))]
    for down, level in zip(network.down, network.encoder[1:], strict=True):
        skips.append(blocks(level, down(skips[-1])))
    answers = []
    for decoder in network.decoders:
        h = skips[-1]
        for n in (1, 0):
            h = blocks(decoder["levels"][n], decoder["up"][n](h) + skips[n])
        answers.append(F.pixel_shuffle(decoder["head"][1](h.clamp(min=0)), 2))
    torch.testing.assert_close(network(x), torch.cat(answers, 1))


def test_standardised_pixels_need_no_training_and_move_with_the_network():
    layer = nets.Standardise(torch.zeros(3), torch.ones(3))
    assert nets.count_parameters(layer) == 0 and set(layer.state_dict()) == {"mean", "std"}
