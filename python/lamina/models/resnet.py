"""ResNet for images [N, 3, 224, 224]; in the bottleneck, the 3x3 convolution strides.

He et al. 2016, "Deep residual learning for image recognition".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import nn
from ..nn.normalization import normalised


def _conv(c: int, k: int, kernel: int, stride: int = 1) -> Any:
    return nn.Conv2d(c, k, kernel, stride=stride, padding=kernel // 2, bias=False)


def _shortcut(c: int, k: int, stride: int) -> Any:
    """Where the shapes differ, a projection."""
    if stride == 1 and c == k:
        return None
    return nn.Sequential(_conv(c, k, 1, stride), nn.BatchNorm2d(k))


def _fused(*pairs: Any, shortcut: Any) -> Any:
    """A block for inference: every normalisation and ReLU, and the sum, inside a convolution."""
    from ._fused import FusedResidual, conv_bn_relu

    return FusedResidual([conv_bn_relu(conv, bn) for conv, bn in pairs], shortcut)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, c: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(c, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(c, width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        y = self.conv2(normalised(self.bn1, self.conv1(x), self.relu))
        shortcut = x if self.downsample is None else self.downsample(x)
        return normalised(self.bn2, y, self.relu, shortcut)

    def fused(self) -> Any:
        return _fused((self.conv1, self.bn1), (self.conv2, self.bn2), shortcut=self.downsample)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, c: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(c, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(c, 4 * width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Any) -> Any:
        y = self.conv2(normalised(self.bn1, self.conv1(x), self.relu))
        y = self.conv3(normalised(self.bn2, y, self.relu))
        shortcut = x if self.downsample is None else self.downsample(x)
        return normalised(self.bn3, y, self.relu, shortcut)

    def fused(self) -> Any:
        pairs = (self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)
        return _fused(*pairs, shortcut=self.downsample)


class ResNet(nn.Module):
    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Sequence[int],
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1: Any = nn.BatchNorm2d(64)
        self.relu: Any = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages, c = [], 64
        for index, depth in enumerate(depths):
            width = 64 << index
            blocks = []
            for first in [True] + [False] * (depth - 1):
                blocks.append(block(c, width, 2 if first and index else 1))
                c = block.expansion * width
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c, num_classes)

    def forward(self, x: Any) -> Any:
        x = self.maxpool(normalised(self.bn1, self.conv1(x), self.relu))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))

    def fused(self) -> ResNet:
        from ._fused import conv_bn_relu

        self.conv1 = conv_bn_relu(self.conv1, self.bn1)
        self.bn1 = self.relu = nn.Identity()
        return self


def resnet18(num_classes: int = 1000) -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet50(num_classes: int = 1000) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes)
