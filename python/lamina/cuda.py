"""GPUs: whether there is one, and what this installation can run on it.

Arrays on a GPU are CuPy arrays, or anything with `__cuda_array_interface__` or `__dlpack__`.
Kernels run on CuPy's current stream and take their workspace from CuPy's memory pool.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from . import arrays


def _module() -> Any:
    """The extension module, None where it was not built. It needs no GPU to be imported."""
    if importlib.util.find_spec(f"{__package__}._cuda") is None:
        return None
    return importlib.import_module("._cuda", __package__)


def is_built() -> bool:
    """Whether this installation has the kernels for GPUs: nvcc was found when it was built."""
    return _module() is not None


def device_count() -> int:
    """GPUs that this process can use; 0 without kernels for them or without a driver."""
    module = _module()
    return 0 if module is None else module.device_count()


def is_available() -> bool:
    """Whether CuPy arrays can be used: kernels, a GPU and CuPy are there."""
    return device_count() > 0 and importlib.util.find_spec("cupy") is not None


def architectures() -> list[str]:
    """What the kernels were compiled for, such as "90a-real" (SASS) or "90-virtual" (PTX)."""
    module = _module()
    return [] if module is None else module.architectures().split()


def synchronize() -> None:
    """Waits for everything that was started on the current device.

    Raises RuntimeError without a GPU.
    """
    require()
    arrays.synchronize()


def require() -> None:
    """Raises RuntimeError, with what is missing, unless `is_available()`."""
    if not is_built():
        raise RuntimeError(
            "cuda: this installation has no kernels for GPUs, because nvcc was not found when it "
            "was built; install a CUDA toolkit (or the wheels nvidia-cuda-nvcc, nvidia-cuda-crt, "
            "nvidia-cuda-runtime and nvidia-nvvm) and build again"
        )
    if device_count() == 0:
        raise RuntimeError("cuda: no GPU is available to this process; use device='cpu'")
    if importlib.util.find_spec("cupy") is None:
        raise RuntimeError("cuda: arrays on a GPU need CuPy; install lamina[cuda]")
