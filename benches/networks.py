"""The networks that are measured, in PyTorch, and their export to ONNX with BatchNorm kept.

Dropout and stochastic depth are off: all sides compute the same.
"""

import contextlib
import io
import warnings

import torch
from torch import nn


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; SiLU after the first and after the sum."""

    def __init__(self, channels_in, channels, stride):
        super().__init__()
        self.first = conv_norm(channels_in, channels, 3, stride)
        self.second = conv_norm(channels, channels, 3)
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else conv_norm(channels_in, channels, 1, stride)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))) + self.shortcut(x))


def conv_norm(channels_in, channels, kernel, stride=1):
    convolution = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels))


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def syncbnnet(classes=10):
    """A stem of 32 channels, stages of 64, 128 and 256 with two residual blocks each, a linear head."""
    layers, channels = [conv_norm(3, 32, 3), nn.SiLU()], 32
    for width in (64, 128, 256):
        layers += [Residual(channels, width, 2), Residual(width, width, 1)]
        channels = width
    return nn.Sequential(*layers, Mean(), nn.Linear(channels, classes))


class UNet(nn.Module):
    """Three levels of two Conv, BatchNorm, ReLU each; upsampling and a convolution lead back up; a class per pixel."""

    def __init__(self, classes=4, widths=(32, 64, 128)):
        super().__init__()

        def double(channels_in, channels):
            halves = [(channels_in, channels), (channels, channels)]
            return nn.Sequential(*(layer for a, b in halves for layer in (conv_norm(a, b, 3), nn.ReLU())))

        downs, ups, merges, channels = [], [], [], 3
        for width in widths:
            downs.append(double(channels, width))
            channels = width
        for width in reversed(widths[:-1]):
            ups.append(nn.Sequential(nn.Upsample(scale_factor=2), conv_norm(channels, width, 3)))
            merges.append(double(2 * width, width))
            channels = width
        self.downs, self.ups, self.merges = nn.ModuleList(downs), nn.ModuleList(ups), nn.ModuleList(merges)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, x):
        skips = []
        for i, down in enumerate(self.downs):
            x = down(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.ups, self.merges):
            x = merge(torch.cat([up(x), skips.pop()], 1))
        return self.head(x)


def of_torchvision(name, **arguments):
    def make():
        import torchvision

        return getattr(torchvision.models, name)(weights=None, **arguments)

    return make


# Name: how it is made, number of classes, whether there is a class per pixel.
NETWORKS = {
    "syncbnnet": (syncbnnet, 10, False),
    "resnet50": (of_torchvision("resnet50"), 1000, False),
    "mobilenet_v2": (of_torchvision("mobilenet_v2", dropout=0.0), 1000, False),
    "efficientnet_b0": (of_torchvision("efficientnet_b0", dropout=0.0, stochastic_depth_prob=0.0), 1000, False),
    "densenet121": (of_torchvision("densenet121"), 1000, False),
    "unet": (UNet, 4, True),
}


def make(name):
    """The network, its parameters drawn from a fixed seed. No two BatchNorms are equal, so that no exporter merges them."""
    torch.manual_seed(0)
    network = NETWORKS[name][0]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def batch_of(name, batch, pixels):
    """Inputs and targets."""
    generator = torch.Generator().manual_seed(1)
    _, classes, dense = NETWORKS[name]
    x = torch.randn(batch, 3, pixels, pixels, generator=generator)
    y = torch.randint(0, classes, (batch, pixels, pixels) if dense else (batch,), generator=generator)
    return x, y


def export(name, batch, pixels, path):
    """Writes the network as ONNX."""
    from torch.onnx import TrainingMode

    x, _ = batch_of(name, batch, pixels)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        # The mode keeps the exporter from folding BatchNorm into convolutions.
        torch.onnx.export(
            make(name).eval(), (x,), path, dynamo=False, opset_version=17, training=TrainingMode.PRESERVE,
            do_constant_folding=False, input_names=["x"], output_names=["y"],
        )
