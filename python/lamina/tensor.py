"""`Tensor`: an array with a gradient and a place in the graph.

Arithmetic and shape methods are the operations of `lamina.operations`, attached there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import arrays
from .autograd import Node, run_backward

_DTYPES = {np.dtype(t) for t in ("f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "?")}


class RemovableHandle:
    """Returned by hook registrations; `remove()` undoes them."""

    def __init__(self, hooks: dict[int, Callable]) -> None:
        self._hooks = hooks
        self._key = id(self)

    def remove(self) -> None:
        self._hooks.pop(self._key, None)


class Tensor:
    """An n-dimensional array that remembers how it was computed.

    Attributes: `data` the NumPy (or CuPy) array; `grad` the accumulated gradient, a Tensor or None;
    `requires_grad`.
    """

    __array_priority__ = 1000  # array <op> Tensor calls the Tensor's reflected method
    __slots__ = (
        "data",
        "grad",
        "_requires_grad",
        "_node",
        "_output_index",
        "_hooks",
        "__weakref__",
    )

    data: Any
    grad: Tensor | None

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        array = data.data if isinstance(data, Tensor) else data
        self.data = array if arrays.is_array(array) else np.asarray(array)
        self.grad = None
        self._requires_grad = False
        self._node: Node | None = None
        self._output_index = 0
        self._hooks: dict[int, Callable] = {}
        self.requires_grad_(requires_grad)

    @classmethod
    def _wrap(cls, array: Any, node: Node | None = None, index: int = 0) -> Tensor:
        """A Tensor around a result; skips the checks of the constructor."""
        self = Tensor.__new__(Tensor)
        self.data = array if arrays.is_array(array) else np.asarray(array)
        self.grad = None
        self._requires_grad = node is not None
        self._node = node
        self._output_index = index
        self._hooks = {}
        return self

    def _edge(self) -> tuple[Any, int]:
        """Where gradients of this Tensor go: its node, or itself if it is a leaf."""
        return (self, -1) if self._node is None else (self._node, self._output_index)

    # Properties

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, value: bool = True) -> Tensor:
        """Marks a leaf as one whose gradient is wanted. Raises RuntimeError for integer arrays."""
        if value and not np.issubdtype(self.data.dtype, np.floating):
            raise RuntimeError(
                f"Tensor: only floating point tensors can require gradients, got dtype={self.dtype}"
            )
        if self._node is not None and not value:
            raise RuntimeError("Tensor: requires_grad of a result cannot be unset; use detach()")
        self._requires_grad = bool(value)
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def device(self) -> str:
        return arrays.device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        return self._node is None

    @property
    def grad_fn(self) -> Node | None:
        return self._node

    # Gradients

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Adds this tensor's derivatives to the `.grad` of every leaf it was computed from.

        gradient: [self.shape], the factor to start with; may be left out for a single element.
        """
        if not self._requires_grad:
            raise RuntimeError(
                "backward: the tensor does not require grad and was not computed from one that does"
            )
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(
                    "backward: gradient= must be given for a tensor of more than one element, "
                    f"got shape={self.shape}"
                )
            start = np.ones_like(self.data)
        else:
            start = np.asarray(gradient.data if isinstance(gradient, Tensor) else gradient)
            if start.shape != self.shape:
                raise ValueError(
                    f"backward: gradient must have the tensor's shape, got "
                    f"gradient.shape={start.shape}, shape={self.shape}"
                )
            start = start.astype(self.dtype, copy=False)
        run_backward(self, start, retain_graph)

    def register_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Calls hook(grad) when the gradient of this tensor is known; a result replaces it."""
        if not self._requires_grad:
            raise RuntimeError("register_hook: the tensor does not require grad")
        if self._node is None:
            hooks = self._hooks
        else:
            by_output = self._node.context.__dict__.setdefault("hooks", {})
            hooks = by_output.setdefault(self._output_index, {})
        handle = RemovableHandle(hooks)
        hooks[handle._key] = hook
        return handle

    def retain_grad(self) -> None:
        """Fills `.grad` of a result too."""
        if self._node is not None:

            def keep(grad: Tensor) -> None:
                self.grad = grad if self.grad is None else Tensor._wrap(self.grad.data + grad.data)

            self.register_hook(keep)

    def detach(self) -> Tensor:
        """The same data outside the graph."""
        return Tensor._wrap(self.data)

    # Conversion

    def numpy(self) -> np.ndarray:
        """The data as a NumPy array, not copied. RuntimeError if the tensor requires grad."""
        if self._requires_grad:
            raise RuntimeError("numpy: the tensor requires grad; use tensor.detach().numpy()")
        return self.data if isinstance(self.data, np.ndarray) else self.data.get()

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item: the tensor must have one element, got shape={self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        return self.data.tolist()

    def to(self, target: Any) -> Tensor:
        """Another dtype or device ("cpu", "cuda"), differentiably; self if nothing changes."""
        if isinstance(target, Tensor):
            target = target.dtype
        if isinstance(target, str) and target.split(":")[0] in ("cpu", "cuda"):
            if target.startswith("cuda"):
                raise RuntimeError("to: this installation has no cuda backend; use device 'cpu'")
            return self
        dtype = np.dtype(target)
        if dtype == self.dtype:
            return self
        from .operations import Cast

        return Cast.apply(self, dtype)

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def cuda(self) -> Tensor:
        return self.to("cuda")

    def float(self) -> Tensor:
        return self.to(np.float32)

    def double(self) -> Tensor:
        return self.to(np.float64)

    def long(self) -> Tensor:
        return self.to(np.int64)

    def numel(self) -> int:
        return self.data.size

    def dim(self) -> int:
        return self.data.ndim

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def zero_(self) -> Tensor:
        """Sets every element to zero, in place, outside the graph."""
        self.data[...] = 0
        return self

    def copy_(self, source: Any) -> Tensor:
        """Overwrites the elements with those of source, in place, outside the graph."""
        self.data[...] = source.data if isinstance(source, Tensor) else source
        return self

    # Python protocols

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return np.array(array, dtype) if copy else np.asarray(array, dtype)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.detach().data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a tensor without dimensions has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.data)

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> Any:
        return float(self.item())

    def __repr__(self) -> str:
        body = np.array2string(np.asarray(self.data), separator=", ", prefix="tensor(", precision=4)
        notes = []
        if self.dtype not in (np.float32, np.int64, np.bool_):
            notes.append(f"dtype={self.dtype}")
        if self._node is not None:
            notes.append(f"grad_fn={self._node!r}")
        elif self._requires_grad:
            notes.append("requires_grad=True")
        return "tensor(" + ", ".join([body, *notes]) + ")"

    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:  # only for what mypy cannot see: operations' methods
        raise AttributeError(f"'Tensor' object has no attribute {name!r}")


def tensor(
    obj: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False
) -> Tensor:
    """A new leaf Tensor holding a copy of obj.

    Python floats become float32, integers int64; an array keeps its dtype.
    """
    source = obj.data if isinstance(obj, Tensor) else obj
    if dtype is None and not isinstance(source, np.ndarray | np.generic):
        default = np.asarray(source)
        dtype = np.float32 if default.dtype == np.float64 else default.dtype
    array = np.array(source, dtype=dtype)
    if array.dtype not in _DTYPES:
        raise TypeError(f"tensor: dtype must be a real number type, got dtype={array.dtype}")
    return Tensor(array, requires_grad).to(device or "cpu")


def from_dlpack(obj: Any) -> Tensor:
    """A Tensor that shares the memory of any object with `__dlpack__`."""
    return Tensor._wrap(np.from_dlpack(obj))
