"""The part of torchvision that pytorch-fid needs: Inception v3 without the auxiliary classifier.

The real torchvision must match PyTorch's build. If it does not, its import fails, and so do the
imports of diffusers and transformers. Layers have the names and settings of torchvision 0.28; with
equal weights the features were bit-identical to torchvision's.
"""

import types

import torch
from torch import nn
from torch.nn import functional


class BasicConv2d(nn.Module):
    """Convolution, batch normalization and ReLU."""

    def __init__(self, inputs, outputs, **settings):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, bias=False, **settings)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return functional.relu(self.bn(self.conv(x)))


def _add(module, inputs, name, *layers):
    """Add a chain of layers (outputs, kernel size, optional stride).

    Padding keeps the size; layers with a stride have no padding.
    """
    for number, (outputs, size, *stride) in enumerate(layers, 1):
        high, wide = (size, size) if isinstance(size, int) else size
        padding = 0 if stride else (high // 2, wide // 2)
        layer = BasicConv2d(
            inputs, outputs, kernel_size=(high, wide), stride=stride[0] if stride else 1,
            padding=padding,
        )  # fmt: skip
        setattr(module, f"{name}_{number}" if len(layers) > 1 else name, layer)
        inputs = outputs


class InceptionA(nn.Module):
    def __init__(self, inputs, pool_features):
        super().__init__()
        _add(self, inputs, "branch1x1", (64, 1))
        _add(self, inputs, "branch5x5", (48, 1), (64, 5))
        _add(self, inputs, "branch3x3dbl", (64, 1), (96, 3), (96, 3))
        _add(self, inputs, "branch_pool", (pool_features, 1))


class InceptionB(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        _add(self, inputs, "branch3x3", (384, 3, 2))
        _add(self, inputs, "branch3x3dbl", (64, 1), (96, 3), (96, 3, 2))

    def forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, functional.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    def __init__(self, inputs, channels_7x7):
        super().__init__()
        wide, high = (channels_7x7, (1, 7)), (channels_7x7, (7, 1))
        first = (channels_7x7, 1)
        _add(self, inputs, "branch1x1", (192, 1))
        _add(self, inputs, "branch7x7", first, wide, (192, (7, 1)))
        _add(self, inputs, "branch7x7dbl", first, high, wide, high, (192, (1, 7)))
        _add(self, inputs, "branch_pool", (192, 1))


class InceptionD(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        _add(self, inputs, "branch3x3", (192, 1), (320, 3, 2))
        _add(self, inputs, "branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2))

    def forward(self, x):
        single = self.branch3x3_2(self.branch3x3_1(x))
        long = self.branch7x7x3_2(self.branch7x7x3_1(x))
        long = self.branch7x7x3_4(self.branch7x7x3_3(long))
        return torch.cat([single, long, functional.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        _add(self, inputs, "branch1x1", (320, 1))
        _add(self, inputs, "branch3x3_1", (384, 1))
        _add(self, inputs, "branch3x3dbl", (448, 1), (384, 3))
        for name in ("branch3x3_2", "branch3x3dbl_3"):
            _add(self, 384, f"{name}a", (384, (1, 3)))
            _add(self, 384, f"{name}b", (384, (3, 1)))
        _add(self, inputs, "branch_pool", (192, 1))


class Inception3(nn.Module):
    """The layers of Inception v3; pytorch-fid replaces some blocks and defines the forward pass."""

    def __init__(self, classes):
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_7a = InceptionD(768)
        self.fc = nn.Linear(2048, classes)


def inception_v3(num_classes, aux_logits, weights, init_weights):
    assert (aux_logits, weights, init_weights) == (False, None, False)
    return Inception3(num_classes)


blocks = types.SimpleNamespace(InceptionA=InceptionA, InceptionC=InceptionC, InceptionE=InceptionE)
torchvision = types.SimpleNamespace(
    __version__="0.28.0",
    models=types.SimpleNamespace(inception=blocks, inception_v3=inception_v3),
)
"""A stub of torchvision for the import of pytorch-fid."""
