"""Padding layers."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..functional._arguments import check_rank, tuple_of
from .module import Module

__all__ = [
    f"{kind}Pad{n}d"
    for kind in ("Circular", "Constant", "Reflection", "Replication", "Zero")
    for n in (1, 2, 3)
]


class _Pad(Module):
    """padding: a number, or (low, high) of the last axis, then of the one before."""

    axes: int
    mode: str

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = tuple_of(type(self).__name__, "padding", padding, 2 * self.axes)

    def forward(self, input: Any) -> Any:
        ranks = (self.axes + 1, self.axes + 2)
        check_rank(type(self).__name__, "input", input, ranks, "(a batch axis is optional)")
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """`functional.pad` with mode="constant": the last axes of an array of any rank."""

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    """`functional.pad` with zeros: the last axes of an array of any rank."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ReflectionPad(_Pad):
    """`functional.pad` with mode="reflect"."""

    mode = "reflect"


class _ReplicationPad(_Pad):
    """`functional.pad` with mode="replicate"."""

    mode = "replicate"


class _CircularPad(_Pad):
    """`functional.pad` with mode="circular"."""

    mode = "circular"


class ConstantPad1d(_ConstantPad):
    """Of [..., L]."""

    axes = 1


class ConstantPad2d(_ConstantPad):
    """Of [..., H, W]."""

    axes = 2


class ConstantPad3d(_ConstantPad):
    """Of [..., D, H, W]."""

    axes = 3


class ZeroPad1d(_ZeroPad):
    """Of [..., L]."""

    axes = 1


class ZeroPad2d(_ZeroPad):
    """Of [..., H, W]."""

    axes = 2


class ZeroPad3d(_ZeroPad):
    """Of [..., D, H, W]."""

    axes = 3


class ReflectionPad1d(_ReflectionPad):
    """Of [N, C, L] or [C, L]."""

    axes = 1


class ReflectionPad2d(_ReflectionPad):
    """Of [N, C, H, W] or [C, H, W]."""

    axes = 2


class ReflectionPad3d(_ReflectionPad):
    """Of [N, C, D, H, W] or [C, D, H, W]."""

    axes = 3


class ReplicationPad1d(_ReplicationPad):
    """Of [N, C, L] or [C, L]."""

    axes = 1


class ReplicationPad2d(_ReplicationPad):
    """Of [N, C, H, W] or [C, H, W]."""

    axes = 2


class ReplicationPad3d(_ReplicationPad):
    """Of [N, C, D, H, W] or [C, D, H, W]."""

    axes = 3


class CircularPad1d(_CircularPad):
    """Of [N, C, L] or [C, L]."""

    axes = 1


class CircularPad2d(_CircularPad):
    """Of [N, C, H, W] or [C, H, W]."""

    axes = 2


class CircularPad3d(_CircularPad):
    """Of [N, C, D, H, W] or [C, D, H, W]."""

    axes = 3
