"""Dropout layers: active in training mode only."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..functional._arguments import real
from .module import Module

__all__ = [
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class _Dropout(Module):
    function: str

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        name = type(self).__name__
        if not 0 <= real(name, "p", p) <= 1:
            raise ValueError(f"{name}: p must be from 0 to 1, got p={p}")
        self.p, self.inplace = p, inplace

    def forward(self, input: Any) -> Any:
        return getattr(F, self.function)(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """`functional.dropout`."""

    function = "dropout"


class Dropout1d(_Dropout):
    """`functional.dropout1d`."""

    function = "dropout1d"


class Dropout2d(_Dropout):
    """`functional.dropout2d`."""

    function = "dropout2d"


class Dropout3d(_Dropout):
    """`functional.dropout3d`."""

    function = "dropout3d"


class AlphaDropout(_Dropout):
    """`functional.alpha_dropout`."""

    function = "alpha_dropout"


class FeatureAlphaDropout(_Dropout):
    """`functional.feature_alpha_dropout`."""

    function = "feature_alpha_dropout"
