"""Pooling layers: each holds the arguments of the function it calls."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..functional._arguments import tuple_of
from ..tensor import Tensor
from .module import Module


class _Pool(Module):
    """Calls functional.<function>(input, **options)."""

    function: str
    hidden: tuple[str, ...] = ("return_indices",)  # not in the repr, as in torch

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def forward(self, input: Any) -> Any:
        options = {name: getattr(self, name) for name in self._options}
        return getattr(F, self.function)(input, **options)

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={getattr(self, k)}" for k in self._options if k not in self.hidden)


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
            return_indices=return_indices,
        )


class _LpPool(_Pool):
    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> None:
        super().__init__(
            norm_type=norm_type, kernel_size=kernel_size, stride=stride, ceil_mode=ceil_mode
        )


class _AdaptiveAvgPool(_Pool):
    def __init__(self, output_size: Any) -> None:
        super().__init__(output_size=output_size)


class _AdaptiveMaxPool(_Pool):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size=output_size, return_indices=return_indices)


class _MaxUnpool(Module):
    function: str
    axes: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        name, n = type(self).__name__, self.axes
        self.kernel_size = tuple_of(name, "kernel_size", kernel_size, n, 1)
        self.stride = tuple_of(name, "stride", kernel_size if stride is None else stride, n, 1)
        self.padding = tuple_of(name, "padding", padding, n, 0)

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        return getattr(F, self.function)(
            input, indices, self.kernel_size, self.stride, self.padding, output_size
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _FractionalMaxPool(_Pool):
    axes: int

    def extra_repr(self) -> str:
        return ""

    def __init__(
        self,
        kernel_size: Any,
        output_size: Any = None,
        output_ratio: Any = None,
        return_indices: bool = False,
        _random_samples: Any = None,
    ) -> None:
        name, n = type(self).__name__, self.axes
        super().__init__(
            kernel_size=tuple_of(name, "kernel_size", kernel_size, n, 1),
            output_size=output_size,
            output_ratio=output_ratio,
            return_indices=return_indices,
        )
        samples = _random_samples
        if samples is not None and not isinstance(samples, Tensor):
            samples = Tensor(samples)
        self.register_buffer("_random_samples", samples)
        self._options += ("_random_samples",)


class _AvgPool(_Pool):
    hidden = ("ceil_mode", "count_include_pad", "divisor_override")

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            stride=kernel_size if stride is None else stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )


class AvgPool1d(_Pool):
    """functional.avg_pool1d."""

    function = "avg_pool1d"
    hidden = ("ceil_mode", "count_include_pad")

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(
            kernel_size=tuple_of("AvgPool1d", "kernel_size", kernel_size, 1, 1),
            stride=tuple_of("AvgPool1d", "stride", kernel_size if stride is None else stride, 1, 1),
            padding=tuple_of("AvgPool1d", "padding", padding, 1, 0),
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )


class AvgPool2d(_AvgPool):
    """functional.avg_pool2d."""

    function = "avg_pool2d"


class AvgPool3d(_AvgPool):
    """functional.avg_pool3d."""

    function = "avg_pool3d"


class MaxPool1d(_MaxPool):
    """functional.max_pool1d."""

    function = "max_pool1d"


class MaxPool2d(_MaxPool):
    """functional.max_pool2d."""

    function = "max_pool2d"


class MaxPool3d(_MaxPool):
    """functional.max_pool3d."""

    function = "max_pool3d"


class LPPool1d(_LpPool):
    """functional.lp_pool1d."""

    function = "lp_pool1d"


class LPPool2d(_LpPool):
    """functional.lp_pool2d."""

    function = "lp_pool2d"


class LPPool3d(_LpPool):
    """functional.lp_pool3d."""

    function = "lp_pool3d"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """functional.adaptive_avg_pool1d."""

    function = "adaptive_avg_pool1d"


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """functional.adaptive_avg_pool2d."""

    function = "adaptive_avg_pool2d"


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """functional.adaptive_avg_pool3d."""

    function = "adaptive_avg_pool3d"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """functional.adaptive_max_pool1d."""

    function = "adaptive_max_pool1d"


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """functional.adaptive_max_pool2d."""

    function = "adaptive_max_pool2d"


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """functional.adaptive_max_pool3d."""

    function = "adaptive_max_pool3d"


class MaxUnpool1d(_MaxUnpool):
    """functional.max_unpool1d."""

    function = "max_unpool1d"
    axes = 1


class MaxUnpool2d(_MaxUnpool):
    """functional.max_unpool2d."""

    function = "max_unpool2d"
    axes = 2


class MaxUnpool3d(_MaxUnpool):
    """functional.max_unpool3d."""

    function = "max_unpool3d"
    axes = 3


class FractionalMaxPool2d(_FractionalMaxPool):
    """functional.fractional_max_pool2d."""

    function = "fractional_max_pool2d"
    axes = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """functional.fractional_max_pool3d."""

    function = "fractional_max_pool3d"
    axes = 3
