"""Lamina: handwritten neural-network kernels on NumPy and CuPy arrays, with layers and gradients.

    import lamina
    import lamina.functional as F

Arrays go in and come out; a `lamina.Tensor` around an array adds gradients.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from . import autograd, operations
from .autograd import Function, enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .tensor import Tensor, from_dlpack, tensor

__version__ = "0.1.0"

# Modules that are imported on first use, so that `import lamina` stays quick.
_MODULES = {
    "bench",
    "cuda",
    "data",
    "functional",
    "models",
    "nn",
    "ops",
    "optim",
    "random",
    "simt",
    "testing",
}

# Names that are imported on first use: name -> module. The compiled kernels load with them.
_LAZY = {
    # autotuning
    "autotune": "autotuning",
    # runtime
    "Kernel": "runtime",
    "Plan": "runtime",
    "backend": "runtime",
    "backends": "runtime",
    "get_backend": "runtime",
    "get_float32_precision": "runtime",
    "get_num_threads": "runtime",
    "isa": "runtime",
    "kernels": "runtime",
    "last_plan": "runtime",
    "packed_filter_bytes": "runtime",
    "set_float32_precision": "runtime",
    "set_num_threads": "runtime",
    "set_packed_filter_limit": "runtime",
    # creation
    "arange": "creation",
    "empty": "creation",
    "eye": "creation",
    "full": "creation",
    "full_like": "creation",
    "linspace": "creation",
    "ones": "creation",
    "ones_like": "creation",
    "zeros": "creation",
    "zeros_like": "creation",
    # random
    "manual_seed": "random",
    # serialization
    "load": "serialization",
    "load_metadata": "serialization",
    "save": "serialization",
}

__all__ = [  # noqa: PLE0604
    "Function",
    "Tensor",
    "autograd",
    "enable_grad",
    "from_dlpack",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
    "tensor",
    *_LAZY,
    *operations.__all__,
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _LAZY:
        value: Any = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in operations.__all__:  # not imported above: they hide builtins such as sum
        value = globals()[name] = getattr(operations, name)
        return value
    module = sys.modules[__name__]  # with it Python suggests a name
    raise AttributeError(f"module 'lamina' has no attribute {name!r}", name=name, obj=module)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if os.environ.get("LAMINA_BACKEND"):  # its kernels must be there before the first call
    importlib.import_module(".runtime", __name__)
