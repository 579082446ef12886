"""Which array library, which device, and the arrays that kernels accept.

This is the only file that imports CuPy, and only when a caller asks for a CUDA device or already
holds a CuPy array: `import lamina` never does.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from . import _C

HALVES = ("float16", "bfloat16")  # on CUDA, and on the CPU under simt; bfloat16 is of ml_dtypes
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
INT64 = np.dtype(np.int64)
_INT64_MAX = 2**63 - 1


def _cupy() -> Any:
    """CuPy if somebody has imported it, else None."""
    return sys.modules.get("cupy")


def _import_cupy(op: str, device: str) -> Any:
    """CuPy itself. Raises RuntimeError where it, or its GPU, is missing."""
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise RuntimeError(
            f"{op}: device needs CuPy and a CUDA GPU, got device={device!r} ({error}); "
            "install lamina[cuda], or use device='cpu'"
        ) from error
    index = _device_index(device)
    if index >= count:
        raise RuntimeError(f"{op}: device must be below cuda:{count}, got device={device!r}")
    return cupy


def device_memory(nbytes: int) -> Any:
    """Memory of CuPy's pool for the current stream: `.ptr` is its address."""
    return _cupy().cuda.alloc(nbytes)


def fault(flag: Any) -> int:
    """What a kernel wrote into `flag` [1]: the first index at fault, or -1.

    Reading it waits for the kernel. While a CUDA graph is captured nothing runs and nothing can be
    read: -1. Kernels never follow an index that is at fault.
    """
    if is_cuda(flag) and _cupy().cuda.get_current_stream().is_capturing():
        return -1
    return int(flag[0])


def synchronize() -> None:
    """Waits for everything that was started on the current GPU."""
    _import_cupy("synchronize", "cuda").cuda.runtime.deviceSynchronize()


@lru_cache(maxsize=1)
def _load_cuda() -> None:
    """Lets the kernels for GPUs join the registry. Raises RuntimeError where they are missing."""
    from .runtime import load_backend

    load_backend("cuda")


is_ready = _C.is_ready  # whether kernels read an array as it is


def adopt(x: Any) -> Any:
    """Arrays of other libraries on a GPU as CuPy arrays of the same memory; the rest passes."""
    if is_array(x) or not hasattr(x, "__cuda_array_interface__"):
        return x
    return _import_cupy("lamina", "cuda").asarray(x)


def is_floating(dtype: Any) -> bool:
    """Whether numbers of the dtype have gradients: bfloat16 is no NumPy kind of its own."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _runs_cuda(cuda: bool) -> bool:
    """Whether CUDA kernels run: on a GPU, and on the CPU under simt. They take 16-bit floats."""
    if cuda:
        return True
    from .runtime import get_backend

    return get_backend() in ("cuda", "simt", "simt_check")


def is_cuda(x: Any) -> bool:
    """Whether `x` is a CuPy array."""
    cupy = _cupy()
    return cupy is not None and isinstance(x, cupy.ndarray)


def on_gpu_kernels(x: Any) -> bool:
    """Whether calls with the array run CUDA kernels."""
    return _runs_cuda(is_cuda(x))


def is_array(x: Any) -> bool:
    """Whether `x` is an array of NumPy or CuPy."""
    return isinstance(x, np.ndarray) or is_cuda(x)


def module_of(x: Any) -> Any:
    """The array library of `x`: cupy for its arrays, else numpy."""
    return _cupy() if is_cuda(x) else np


def _device_index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def parse_device(op: str, device: Any) -> str:
    """ "cpu" or "cuda:<index>". Raises ValueError for anything else."""
    name = str(device)
    kind, separator, index = name.partition(":")
    if (kind == "cpu" and index in ("", "0")) or (
        kind == "cuda" and (not separator or (index.isascii() and index.isdigit()))
    ):
        return "cpu" if kind == "cpu" else f"cuda:{_device_index(name)}"
    raise ValueError(f"{op}: device must be 'cpu' or 'cuda:<index>', got device={device!r}")


def device_of(x: Any) -> str:
    """ "cpu" or "cuda:<index>", of an array."""
    return f"cuda:{x.device.id}" if is_cuda(x) else "cpu"


def to_numpy(x: Any) -> np.ndarray:
    """The values of an array on the CPU; NumPy arrays pass through."""
    return _cupy().asnumpy(x) if is_cuda(x) else np.asarray(x)


def to_device(op: str, x: Any, device: Any) -> Any:
    """The array on `device`, itself if it is there. Raises RuntimeError without a GPU."""
    name = parse_device(op, device)
    if device_of(x) == name:
        return x
    if name == "cpu":
        return to_numpy(x)
    cupy = _import_cupy(op, name)
    with cupy.cuda.Device(_device_index(name)):
        return cupy.asarray(x)


def _advice(dtype: np.dtype) -> str:
    if dtype.kind in "biu":
        return "convert it with .astype('float32')"
    if dtype.name in HALVES:
        return f"{dtype} runs on CUDA only: convert it with .astype('float32')"
    if dtype.kind == "c":
        return "pass the real and imaginary parts as two float32 arrays"
    return "convert it to float32 or float64"


def checked_dtype(op: str, dtype: Any, cuda: bool = False) -> np.dtype:
    """A dtype that a Tensor may hold: real numbers and booleans; 16-bit floats on CUDA only.

    Raises TypeError for the others and for what names no dtype.
    """
    try:
        result = np.dtype(dtype)
    except TypeError as error:
        raise TypeError(
            f"{op}: dtype must name a NumPy dtype, got dtype={dtype!r}; use for example 'float32'"
        ) from error
    if result.kind in "biu" or (result.kind == "f" and result.itemsize in (4, 8)):
        return result
    if result.name in HALVES and _runs_cuda(cuda):
        return result
    raise TypeError(
        f"{op}: dtype must be float32, float64, an integer or boolean, got dtype={result}; "
        f"{_advice(result)}"
    )


def kind_of(x: Any) -> str:
    """The type of `x` in messages: with its library, where that tells more (torch.Tensor)."""
    kind = type(x)
    library = kind.__module__.partition(".")[0]
    return kind.__name__ if library in ("builtins", "lamina") else f"{library}.{kind.__name__}"


def _conversion(name: str, x: Any, dtype: str) -> str:
    """How to make an array of what is none."""
    if hasattr(x, "__dlpack__"):
        return f"share its memory with lamina.from_dlpack({name})"
    return f"convert it with numpy.asarray(..., dtype='{dtype}')"


def check_float(op: str, name: str, x: Any) -> None:
    """Raises TypeError unless `x` is a float32 or float64 array (on CUDA also 16-bit floats)."""
    if not is_array(x):
        raise TypeError(
            f"{op}: {name} must be an array of float32 or float64, got {name} of type "
            f"{kind_of(x)}; {_conversion(name, x, 'float32')}"
        )
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{op}: {name} must be a plain array, got {name} of type MaskedArray; "
            "fill the masked values with .filled(value)"
        )
    dtype = x.dtype
    if dtype.kind == "f" and dtype.itemsize in (4, 8):
        return
    if dtype.name in HALVES and _runs_cuda(is_cuda(x)):
        return
    raise TypeError(
        f"{op}: {name} must be float32 or float64, got {name}.dtype={dtype}; {_advice(dtype)}"
    )


def asarray(op: str, name: str, x: Any) -> Any:
    """`x` as the kernels read it: float32 or float64, C-contiguous, aligned, native byte order.

    Such an array passes through; any other layout is copied. `x` is never written.

    Raises TypeError, naming `op` and `name`, for other dtypes and other kinds of object.
    """
    if is_ready(x):
        return x
    x = adopt(x)
    check_float(op, name, x)
    if is_cuda(x):
        _load_cuda()
        return x if x.flags.c_contiguous else _cupy().ascontiguousarray(x).reshape(x.shape)
    if type(x) is np.ndarray and x.dtype in FLOATS and x.dtype.isnative:
        return _C.in_c_order(x)
    return np.require(np.asarray(x), x.dtype.newbyteorder("="), ["C", "A"])


def asindices(op: str, name: str, x: Any) -> Any:
    """`x` as a contiguous int64 array. Raises TypeError for anything but an array of integers."""
    if type(x) is np.ndarray and x.dtype is INT64:
        flags = x.flags
        if flags.c_contiguous and flags.aligned:
            return x
    if not is_array(x):
        raise TypeError(
            f"{op}: {name} must be an array of integers (int64), got {name} of type "
            f"{kind_of(x)}; {_conversion(name, x, 'int64')}"
        )
    if x.dtype.kind not in "iu":
        raise TypeError(
            f"{op}: {name} must be an array of integers (int64), got {name}.dtype={x.dtype}; "
            "convert it with .astype('int64')"
        )
    if is_cuda(x):
        return _cupy().ascontiguousarray(x, dtype=np.int64).reshape(x.shape)
    return np.require(x, np.int64, ["C", "A"])


def same_kind(op: str, **arrays: Any) -> None:
    """Raises TypeError unless the arrays (None is skipped) share one dtype and one device."""
    given = [(name, x) for name, x in arrays.items() if x is not None]
    first_name, first = given[0]
    for name, x in given[1:]:
        if x.dtype != first.dtype:
            raise TypeError(
                f"{op}: {name} must have the dtype of {first_name}, got {name}.dtype={x.dtype}, "
                f"{first_name}.dtype={first.dtype}; convert one with .astype"
            )
        if device_of(x) != device_of(first):
            raise TypeError(
                f"{op}: {name} must be on the device of {first_name}, got {name} on "
                f"{device_of(x)}, {first_name} on {device_of(first)}; move one with .to(device)"
            )


@lru_cache(maxsize=1)
def physical_memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _INT64_MAX


def empty(op: str, shape: Sequence[int], dtype: Any, like: Any = None) -> Any:
    """A new uninitialised array of the library and device of `like` (NumPy without it).

    Its memory may be that of an array which is gone (csrc/core/buffers.h).

    Raises, before anything is allocated, ValueError for a negative size or for more bytes than an
    int64 counts, and MemoryError for more than the physical memory.
    """
    if like is None or type(like) is np.ndarray:
        array = _C.empty(tuple(shape), dtype)
        if array is not None:
            return array
    shape = tuple(int(size) for size in shape)
    dtype = np.dtype(dtype)
    if any(size < 0 for size in shape):
        raise ValueError(f"{op}: the result must have no negative size, got shape={shape}")
    total = math.prod(shape) * dtype.itemsize
    # Zero-size arrays too: NumPy multiplies the non-zero sizes of a shape.
    if math.prod(size for size in shape if size) * dtype.itemsize > _INT64_MAX:
        raise ValueError(
            f"{op}: the result must have fewer than 2**63 bytes, got shape={shape}, dtype={dtype}; "
            "use smaller sizes"
        )
    module = module_of(like)
    if module is np and total > physical_memory():
        raise MemoryError(
            f"{op}: the result needs {total} bytes, more than the {physical_memory()} of this "
            f"machine, got shape={shape}, dtype={dtype}; use smaller sizes"
        )
    if module is np:
        return np.empty(shape, dtype)
    with like.device:
        return module.empty(shape, dtype)


def arithmetic_dtype(x: Any) -> np.dtype:
    """What kernels compute in, and keep for the way back: float32 for 16-bit floats."""
    return np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype


def empty_like(op: str, x: Any) -> Any:
    """A new uninitialised C-contiguous array of the shape, dtype and device of `x`."""
    return empty(op, x.shape, x.dtype, like=x)
