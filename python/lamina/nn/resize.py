"""Layers that change the size: interpolation, block unpoolings, shuffles."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .module import Module

__all__ = [
    "BedOfNailsUnpool1d",
    "BedOfNailsUnpool2d",
    "BedOfNailsUnpool3d",
    "ChannelShuffle",
    "NearestUnpool1d",
    "NearestUnpool2d",
    "NearestUnpool3d",
    "PixelShuffle",
    "PixelUnshuffle",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]


class Upsample(Module):
    """`functional.interpolate`."""

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        several = isinstance(scale_factor, tuple | list)
        self.scale_factor = (
            tuple(float(f) for f in scale_factor)
            if several
            else float(scale_factor)
            if scale_factor
            else None
        )
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Any) -> Any:
        return F.interpolate(
            input,
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
        )

    def extra_repr(self) -> str:
        if self.scale_factor is not None:
            return f"scale_factor={self.scale_factor!r}, mode={self.mode!r}"
        return f"size={self.size!r}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """`Upsample` with mode="nearest"."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` with mode="bilinear" and align_corners=True."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class _Unpool(Module):
    function: str

    def __init__(self, kernel_size: Any) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, input: Any) -> Any:
        return getattr(F, self.function)(input, self.kernel_size)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}"


class NearestUnpool1d(_Unpool):
    """`functional.nearest_unpool1d`."""

    function = "nearest_unpool1d"


class NearestUnpool2d(_Unpool):
    """`functional.nearest_unpool2d`."""

    function = "nearest_unpool2d"


class NearestUnpool3d(_Unpool):
    """`functional.nearest_unpool3d`."""

    function = "nearest_unpool3d"


class BedOfNailsUnpool1d(_Unpool):
    """`functional.bed_of_nails_unpool1d`."""

    function = "bed_of_nails_unpool1d"


class BedOfNailsUnpool2d(_Unpool):
    """`functional.bed_of_nails_unpool2d`."""

    function = "bed_of_nails_unpool2d"


class BedOfNailsUnpool3d(_Unpool):
    """`functional.bed_of_nails_unpool3d`."""

    function = "bed_of_nails_unpool3d"


class PixelShuffle(Module):
    """`functional.pixel_shuffle`."""

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Any) -> Any:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """`functional.pixel_unshuffle`."""

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Any) -> Any:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """`functional.channel_shuffle`."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Any) -> Any:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
