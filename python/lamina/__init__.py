"""Lamina: fast, handwritten neural-network kernels with a thin torch-like layer API.

`lamina.functional`, `lamina.nn`, `lamina.optim`, `lamina.ops` load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .autograd import (
    Function,
    enable_grad,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from .runtime import (
    Kernel,
    Plan,
    backend,
    backends,
    get_backend,
    get_num_threads,
    isa,
    kernels,
    last_plan,
    set_num_threads,
)
from .tensor import Tensor, from_dlpack, tensor

__version__ = "0.1.0"

_SUBMODULES = frozenset({"functional", "nn", "optim", "ops", "data", "testing", "random", "bench"})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Function",
    "Kernel",
    "Plan",
    "Tensor",
    "backend",
    "backends",
    "enable_grad",
    "from_dlpack",
    "get_backend",
    "get_num_threads",
    "is_grad_enabled",
    "isa",
    "kernels",
    "last_plan",
    "no_grad",
    "set_grad_enabled",
    "set_num_threads",
    "tensor",
]
