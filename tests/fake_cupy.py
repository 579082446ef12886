"""A stand-in for CuPy without a GPU: its arrays lie in host memory, its kernels are those of simt.

It is as strict as CuPy where mistakes are made: a NumPy function that CuPy does not take raises,
and nothing turns into a NumPy array without `asnumpy`. Only what Lamina uses is here.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np


class Device:
    id = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *args: object) -> None:
        pass


def _unwrap(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, (tuple, list)):
        return type(value)(map(_unwrap, value))
    if isinstance(value, dict):
        return {key: _unwrap(item) for key, item in value.items()}
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(np.asarray(value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(_wrap, value))
    return value


class ndarray:  # as CuPy spells it
    __array_priority__ = 100

    def __init__(self, host: np.ndarray, base: Any = None) -> None:
        self._host = host
        self.base = base

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        host = self._host
        return {
            "shape": host.shape,
            "typestr": host.dtype.str,
            "data": (host.ctypes.data, False),
            "strides": None if host.flags.c_contiguous else host.strides,
            "version": 3,
            "stream": 1,
        }

    device = Device()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Use .get().")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        for value in inputs:
            if isinstance(value, np.ndarray) and value.ndim:
                raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return _wrap(getattr(ufunc, method)(*_unwrap(inputs), **_unwrap(kwargs)))

    def __array_function__(self, function: Any, kinds: Any, args: Any, kwargs: Any) -> Any:
        return _wrap(function(*_unwrap(args), **_unwrap(kwargs)))

    def __getitem__(self, key: Any) -> Any:
        return _wrap(self._host[_unwrap(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        self._host[_unwrap(key)] = _unwrap(value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._host, name)
        if not callable(value):
            return _wrap(value)

        def method(*args: Any, **kwargs: Any) -> Any:
            return _wrap(value(*_unwrap(args), **_unwrap(kwargs)))

        return method

    def get(self) -> np.ndarray:
        return self._host.copy()

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Any]:
        return map(_wrap, self._host)

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __index__(self) -> int:
        return self._host.__index__()

    __hash__ = object.__hash__


def _operator(name: str) -> Any:
    def apply(self: ndarray, *others: Any) -> Any:
        for other in others:
            if isinstance(other, np.ndarray) and other.ndim:
                raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        result = getattr(self._host, name)(*_unwrap(others))
        return self if name.startswith("__i") and name != "__invert__" else _wrap(result)

    return apply


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
for _name in _BINARY:
    for _form in ("__{}__", "__r{}__", "__i{}__"):
        setattr(ndarray, _form.format(_name), _operator(_form.format(_name)))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


class _Module(types.ModuleType):
    """Functions that CuPy has under NumPy's names; arrays of NumPy are refused, as there."""

    ndarray = ndarray

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        if isinstance(value, type) or not callable(value):
            return value

        def function(*args: Any, **kwargs: Any) -> Any:
            for argument in (*args, *kwargs.values()):
                if isinstance(argument, np.ndarray) and argument.ndim:
                    raise TypeError(f"cupy.{name}: Unsupported type <class 'numpy.ndarray'>")
            return _wrap(value(*_unwrap(args), **_unwrap(kwargs)))

        if isinstance(value, np.ufunc):
            function.at = lambda *args: value.at(*_unwrap(args))  # type: ignore[attr-defined]
        return function

    def asarray(self, x: Any, dtype: Any = None) -> ndarray:
        if hasattr(x, "array") and hasattr(x, "__cuda_array_interface__"):  # another library's
            x = x.array
        if isinstance(x, ndarray) and (dtype is None or x._host.dtype == dtype):
            return x
        return ndarray(np.array(_unwrap(x), dtype=dtype))

    array = asarray

    def asnumpy(self, x: Any) -> np.ndarray:
        return x.get() if isinstance(x, ndarray) else np.asarray(x)

    def from_dlpack(self, x: Any) -> ndarray:
        return ndarray(np.from_dlpack(_unwrap(x)))


def _cupy() -> types.ModuleType:
    module = _Module("cupy")
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    stream = types.SimpleNamespace(is_capturing=lambda: False)
    module.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        runtime=runtime, Device=lambda index: Device(), get_current_stream=lambda: stream
    )
    return module


@contextlib.contextmanager
def installed() -> Iterator[Any]:
    """`import cupy` gives the stand-in; the kernels of simt serve as the backend "cuda".

    Where there is a GPU it gives CuPy itself.
    """
    from lamina import arrays, cuda, runtime

    if cuda.is_available():
        import cupy

        yield cupy
        return
    before = sys.modules.get("cupy")
    runtime.load_backend("simt").join_registry("cuda")
    sys.modules["cupy"] = _cupy()
    load, backends = arrays._load_cuda, runtime._backends
    names = (*backends(), "cuda")
    arrays._load_cuda = lambda: None  # type: ignore[assignment]
    runtime._backends = lambda: names  # type: ignore[assignment]
    runtime._loaded["cuda"] = runtime._loaded["simt"]
    try:
        yield sys.modules["cupy"]
    finally:
        arrays._load_cuda, runtime._backends = load, backends  # type: ignore[assignment]
        del runtime._loaded["cuda"]
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
