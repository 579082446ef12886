"""MobileNetV2 for images [N, 3, 224, 224].

Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks".
"""

from __future__ import annotations

from typing import Any

from .. import nn
from ..nn.module import is_plain
from ..nn.normalization import normalised

# Expansion, output channels, blocks, stride of the first block (table 2 of the paper).
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _conv(c: int, k: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
    """Convolution, normalisation, ReLU6."""
    pad = kernel // 2
    return nn.Sequential(
        nn.Conv2d(c, k, kernel, stride=stride, padding=pad, groups=groups, bias=False),
        nn.BatchNorm2d(k),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 to more channels, 3x3 a channel at a time, 1x1 back without a nonlinearity."""

    def __init__(self, c: int, k: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = c * expansion
        layers = [] if expansion == 1 else [_conv(c, wide, 1)]
        self.conv = nn.Sequential(
            *layers,
            _conv(wide, wide, 3, stride, wide),
            nn.Conv2d(wide, k, 1, bias=False),
            nn.BatchNorm2d(k),
        )
        self.residual = stride == 1 and c == k

    def forward(self, x: Any) -> Any:
        if self.residual and is_plain(self.conv):  # the sum inside the last normalisation
            *layers, norm = self.conv
            y = x
            for layer in layers:
                y = layer(y)
            return normalised(norm, y, None, x)
        y = self.conv(x)
        return x + y if self.residual else y

    def fused(self) -> Any:
        from ._fused import FusedResidual

        return FusedResidual(self.conv) if self.residual else self.conv


class MobileNetV2(nn.Module):
    def __init__(self, num_classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        layers, c = [_conv(3, 32, 3, 2)], 32
        for expansion, k, blocks, stride in _STAGES:
            for index in range(blocks):
                layers.append(InvertedResidual(c, k, 1 if index else stride, expansion))
                c = k
        layers.append(_conv(c, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, num_classes))

    def forward(self, x: Any) -> Any:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2(num_classes: int = 1000) -> MobileNetV2:
    return MobileNetV2(num_classes)
