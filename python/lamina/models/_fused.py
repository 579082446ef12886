"""What `nn.utils.fuse` makes of a residual block."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import nn


class FusedResidual(nn.Module):
    """Layers in a row; the last one, a convolution, adds the shortcut before its activation."""

    def __init__(self, layers: Iterable[Any], shortcut: Any = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        *first, last = self.layers
        y = x
        for layer in first:
            y = layer(y)
        return last(y, residual=x if self.shortcut is None else self.shortcut(x))


def conv_bn_relu(conv: Any, bn: Any) -> Any:
    """The three as one convolution, for inference."""
    layer = nn.utils.fuse_conv_bn_eval(conv, bn)
    layer.activation = "relu"
    return layer
