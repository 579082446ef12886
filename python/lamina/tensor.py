"""Tensor: an array, and where it came from.

This file holds what a Tensor is: its data, its place in the graph and its writes in place. What it
becomes is in `conversion.py`, what it can compute in `operations/`: each operation is a function
there, and a method by `operations/methods.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from weakref import ref

import numpy as np

from . import _C, autograd
from .arrays import (
    adopt,
    checked_dtype,
    device_of,
    is_array,
    is_cuda,
    is_floating,
    module_of,
    to_device,
    to_numpy,
)
from .autograd import Edge, Node, Version, is_grad_enabled
from .conversion import Conversions
from .operations import indexing
from .operations.methods import Methods

_hook_keys = count()


def _array_of(op: str, data: Any) -> Any:
    """The array of a Tensor, array, scalar or nested list; Python floats become float32."""
    if isinstance(data, Tensor):
        return data.data
    data = adopt(data)
    if is_array(data) or isinstance(data, np.generic):
        array = data if is_cuda(data) else np.asarray(data)
    else:
        if isinstance(data, (list, tuple)):
            data = _without_tensors(data)
        try:
            array = np.asarray(data)
        except ValueError as error:
            raise ValueError(
                f"{op}: data must be rectangular, got {type(data).__name__} ({error}); "
                "give every row the same length"
            ) from error
        if array.dtype == np.float64:
            array = array.astype(np.float32)
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(f"{op}: data must be a plain array, got MaskedArray; use .filled(value)")
    checked_dtype(op, array.dtype, is_cuda(array))
    return array


def _without_tensors(data: Any) -> Any:
    if isinstance(data, (list, tuple)):
        return [_without_tensors(item) for item in data]
    return to_numpy(data.data) if isinstance(data, Tensor) else data


class RemovableHandle:
    """Returned by hook registrations; `remove()` undoes them."""

    def __init__(self, hooks: dict[int, Callable[..., Any]]) -> None:
        self._hooks = hooks
        self.key = next(_hook_keys)

    def remove(self) -> None:
        self._hooks.pop(self.key, None)


class Tensor(Conversions, Methods):
    """A NumPy or CuPy array that may carry a gradient.

    `data` is shared when it is an array, so use `lamina.tensor` for a copy. Python floats become
    float32; float32 and float64 live on the CPU, 16-bit floats on CUDA only; integers and
    booleans (labels, masks, indices) cannot require a gradient.

    Raises TypeError for other kinds of data.
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "_grad",
        "_hooks",
        "_index",
        "_packed",
        "_requires_grad",
        "_version",
        "grad_fn",
    )
    __array_ufunc__ = None  # array + tensor is tensor.__radd__, not an object array

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self._data = _array_of("Tensor", data)
        self._version: Version | None = None
        self._packed: Any = None  # filters packed from the array (csrc/bindings/filter_store.h)
        self._grad: Tensor | None = None
        self._requires_grad = False
        self._hooks: dict[int, Callable[..., Any]] | None = None
        self._index = 0
        self.grad_fn: Node | None = None
        if requires_grad:
            self.requires_grad_()

    @classmethod
    def _wrap(cls, array: Any) -> Tensor:
        """A Tensor around a result; skips the checks of the constructor."""
        self = _new_tensor(Tensor)
        self._data = array if is_array(array) else np.asarray(array)
        self._version = self._grad = self._hooks = self.grad_fn = None
        self._requires_grad = False
        self._index = 0
        return self

    # Description

    @property
    def data(self) -> Any:
        """The array itself, outside of differentiation."""
        self._packed = None  # whoever has the array may write it
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        array = _array_of("Tensor.data", value)
        if self.grad_fn is not None:
            raise RuntimeError(
                "Tensor.data: only a leaf's array can be replaced, got a result of "
                f"{self.grad_fn.name}; use detach()"
            )
        if self._requires_grad and not is_floating(array.dtype):
            raise TypeError(
                f"Tensor.data: a tensor that requires a gradient stays floating, got dtype="
                f"{array.dtype}; use requires_grad_(False) first"
            )
        self._data = array
        self._packed = self._version = None

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward` added up, or None."""
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            value = value if isinstance(value, Tensor) else Tensor(value)
            if value.shape != self.shape or value.dtype != self.dtype:
                raise ValueError(
                    "Tensor.grad: must have the shape and dtype of the tensor, got "
                    f"grad.shape={value.shape}, shape={self.shape}, "
                    f"grad.dtype={value.dtype}, dtype={self.dtype}; convert it first"
                )
        self._grad = value

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def device(self) -> str:
        """ "cpu" or "cuda:<index>"."""
        return device_of(self._data)

    @property
    def is_cuda(self) -> bool:
        return is_cuda(self._data)

    @property
    def itemsize(self) -> int:
        return self._data.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return self._data.size

    def element_size(self) -> int:
        return self.itemsize

    def is_floating_point(self) -> bool:
        return is_floating(self._data.dtype)

    def is_contiguous(self) -> bool:
        return self._data.flags.c_contiguous

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a tensor of no dimension has no length, got shape=(); use item()")
        return self.shape[0]

    def __repr__(self) -> str:
        digits = np.get_printoptions()["precision"]
        body = np.array2string(
            to_numpy(self._data),
            prefix="tensor(",
            separator=", ",
            precision=min(digits, 4),
            threshold=1000,
        )
        extras = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        if self.numel() == 0 and self.shape != (0,):
            extras = f", size={self.shape}{extras}"
        if self.is_cuda:
            extras += f", device='{self.device}'"
        if self.grad_fn is not None:
            extras += f", grad_fn={self.grad_fn}"
        elif self._requires_grad:
            extras += ", requires_grad=True"
        return f"tensor({body}{extras})"

    # Differentiation

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self.grad_fn is None

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Asks for a gradient in backward, or no longer. Returns the tensor itself.

        Raises TypeError for integers and booleans, RuntimeError to stop at a result.
        """
        if requires_grad and not self.is_floating_point():
            raise TypeError(
                f"requires_grad_: only floating tensors have gradients, got dtype={self.dtype}; "
                "convert it with .float()"
            )
        if not requires_grad and self.grad_fn is not None:
            raise RuntimeError(
                f"requires_grad_: a result of {self.grad_fn.name} cannot drop its history, got "
                "requires_grad=False; use detach()"
            )
        self._requires_grad = bool(requires_grad)
        return self

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Adds d(self)/d(leaf), weighted by `gradient`, to the `.grad` of every leaf.

        `gradient` has the shape of the tensor and may be left out for one element. The graph is
        freed unless `retain_graph`.

        Raises RuntimeError without a graph, without a needed `gradient`, for a freed graph, or
        where a needed array was written in place since.
        """
        _C.backward("backward", (self,), (gradient,), None, retain_graph)

    def detach(self) -> Tensor:
        """The same array without history."""
        result = Tensor(self.data)
        result._version = self._writes()
        return result

    def register_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Calls `hook(gradient)` in every backward, before the gradient is used.

        A result other than None replaces the gradient. The handle's `remove()` takes the hook away.
        """
        if not self._requires_grad:
            raise RuntimeError(
                "register_hook: the tensor must require a gradient, got requires_grad=False; "
                "call requires_grad_() first"
            )
        if not callable(hook):
            raise TypeError(f"register_hook: hook must be callable, got {type(hook).__name__}")
        node = self.grad_fn
        if node is not None:
            hooks = node.hooks_of(self._index)
        else:
            hooks = self._hooks = {} if self._hooks is None else self._hooks
        handle = RemovableHandle(hooks)
        hooks[handle.key] = hook
        return handle

    def retain_grad(self) -> None:
        """Keeps `.grad` of a result too. Does nothing on a leaf, which keeps it anyway."""
        if self.grad_fn is None and self._requires_grad:
            return
        weak = ref(self)

        def keep(gradient: Tensor) -> None:
            tensor = weak()
            if tensor is not None:
                tensor._accumulate(gradient.data)

        self.register_hook(keep)

    def _seed(self, op: str, gradient: Any) -> Any:
        """The array that a backward from here starts with."""
        if not self._requires_grad:
            raise RuntimeError(
                f"{op}: the tensor must require a gradient, got requires_grad=False; "
                "make a leaf with requires_grad=True and compute outside of no_grad()"
            )
        if gradient is None:
            if self.numel() != 1:
                raise RuntimeError(
                    f"{op}: gradient may be left out for one element only, got "
                    f"shape={self.shape}; pass gradient, or reduce with sum() or mean()"
                )
            return module_of(self._data).ones(self.shape, self.dtype)
        array = _array_of(op, gradient)
        if array.shape != self.shape:
            raise ValueError(
                f"{op}: gradient must have the shape of the tensor, got "
                f"gradient.shape={array.shape}, shape={self.shape}; reshape or broadcast it"
            )
        return array

    def _edge(self) -> Edge:
        return (self, 0) if self.grad_fn is None else (self.grad_fn, self._index)

    def _accumulate(self, gradient: Any, owned: bool = False) -> None:
        """Adds to `.grad`; an array that is not `owned` may be shared with another gradient."""
        if self._grad is None:
            keep = owned and gradient.flags.c_contiguous
            self._grad = Tensor._wrap(gradient if keep else gradient.copy())
        elif self._grad._data.flags.c_contiguous and getattr(
            self._grad._data.flags, "writeable", True
        ):
            array = self._grad.data
            array += gradient
        else:
            self._grad = Tensor(self._grad._data + gradient)

    def _writes(self) -> Version:
        """The count of writes into this tensor's memory; begins when somebody asks."""
        if self._version is None:
            self._version = Version()
        return self._version

    # Copies

    def __copy__(self) -> Tensor:
        """A leaf on the same array, also of a result; what is written to one counts for both."""
        result = type(self).__new__(type(self))
        Tensor.__init__(result, self.data, self._requires_grad)
        result._version = self._writes()
        if hasattr(self, "__dict__"):  # of subclasses
            result.__dict__.update(self.__dict__)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self.grad_fn is not None:
            raise RuntimeError(
                f"deepcopy: only leaves can be copied with their state, got a result of "
                f"{self.grad_fn.name}; use detach().clone()"
            )
        result = type(self).__new__(type(self))
        Tensor.__init__(result, self._data.copy(), self._requires_grad)
        if self._grad is not None:
            result._grad = Tensor(self._grad._data.copy())
        memo[id(self)] = result
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        if self.grad_fn is not None:
            raise RuntimeError(
                f"pickle: only leaves can be saved, got a result of {self.grad_fn.name}; "
                "use detach()"
            )
        return type(self), (self.data, self._requires_grad), getattr(self, "__dict__", None) or None

    # Writes in place

    def _writable(self, op: str, *sources: Any) -> Any:
        """The array to write to. Raises RuntimeError where a gradient would be lost."""
        if is_grad_enabled():
            for name, tensor in (("the tensor", self), *(("the source", s) for s in sources)):
                if isinstance(tensor, Tensor) and tensor._requires_grad:
                    raise RuntimeError(
                        f"{op}: writes in place are not recorded, got {name} with "
                        "requires_grad=True; use with no_grad(), or an operation that makes a "
                        "new tensor"
                    )
        if not getattr(self._data.flags, "writeable", True):
            raise ValueError(f"{op}: the array must be writable, got a read-only one; use clone()")
        self._writes().count += 1
        return self.data

    def zero_(self) -> Tensor:
        self._writable("zero_")[...] = 0
        return self

    def fill_(self, value: Any) -> Tensor:
        self._writable("fill_", value)[...] = _array_of("fill_", value)
        return self

    def copy_(self, source: Any) -> Tensor:
        """Writes `source`, broadcast to the shape of the tensor and converted to its dtype."""
        array = to_device("copy_", _array_of("copy_", source), self.device)
        try:
            shown = module_of(array).broadcast_to(array, self.shape)
        except ValueError as error:
            raise ValueError(
                f"copy_: source must broadcast to the tensor, got source.shape={array.shape}, "
                f"shape={self.shape}; reshape it"
            ) from error
        self._writable("copy_", source)[...] = shown
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        key = indexing.array_index("setitem", self._data, index)
        array = to_device("setitem", _array_of("setitem", value), self.device)
        target = self._writable("setitem", value)
        first, rest = indexing.in_steps(key)
        if first:
            target[first][rest] = array
        else:
            target[key] = array

    __hash__ = object.__hash__

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))


_new_tensor = object.__new__
autograd.Tensor = Tensor  # type: ignore[misc]
_C.set_graph(autograd)


def array_of(x: Any) -> Any:
    """The array of a Tensor; anything else passes through."""
    return x.data if isinstance(x, Tensor) else x


def tensor(obj: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new leaf with a copy of `obj`: an array, Tensor, number or nested list.

    Python floats become float32, Python integers int64; arrays keep their dtype.

    Raises TypeError for data that is not real numbers, RuntimeError without the device.
    """
    array = _array_of("tensor", obj)
    if device is not None:
        array = to_device("tensor", array, device)
    if dtype is not None:
        array = array.astype(checked_dtype("tensor", dtype, is_cuda(array)))
    else:
        array = array.copy()
    return Tensor(array, requires_grad)


def from_dlpack(obj: Any) -> Tensor:
    """A Tensor on the memory of any array with `__dlpack__`, without a copy.

    Raises TypeError for objects without it and for dtypes that Tensor does not hold.
    """
    if not hasattr(obj, "__dlpack__") or not hasattr(obj, "__dlpack_device__"):
        raise TypeError(
            f"from_dlpack: obj must have __dlpack__, got {type(obj).__name__}; "
            "use lamina.tensor for lists and numbers"
        )
    kind = int(obj.__dlpack_device__()[0])
    if kind == 1:
        return Tensor(np.from_dlpack(obj))
    from .arrays import _import_cupy

    return Tensor(_import_cupy("from_dlpack", "cuda").from_dlpack(obj))
