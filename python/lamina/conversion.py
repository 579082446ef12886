"""What a Tensor becomes: an array, a Python number, another dtype, another device.

`Tensor` inherits from `Conversions`, as from `operations.methods.Methods`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import checked_dtype, parse_device
from .operations import shape


class Conversions:
    """Of a Tensor with the array `_data`."""

    __slots__ = ()

    def numpy(self: Any) -> np.ndarray:
        """The array, shared, of a tensor on the CPU that requires no gradient."""
        if self._requires_grad:
            raise RuntimeError(
                "numpy: the tensor must require no gradient, got requires_grad=True; "
                "use detach().numpy()"
            )
        if self.is_cuda:
            raise RuntimeError(
                f"numpy: the tensor must be on the CPU, got device={self.device!r}; "
                "use cpu().numpy()"
            )
        return self.data

    def item(self: Any) -> Any:
        """The Python number of a tensor of one element."""
        if self.numel() != 1:
            raise ValueError(
                f"item: the tensor must have one element, got shape={self.shape}; index it first"
            )
        return self._data.item()

    def tolist(self: Any) -> Any:
        return self._data.tolist()

    def __array__(self: Any, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"numpy: dtype={dtype} needs a copy, got dtype={array.dtype}")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self: Any, **options: Any) -> Any:
        if self._requires_grad:
            raise RuntimeError(
                "__dlpack__: the tensor must require no gradient, got requires_grad=True; "
                "use detach()"
            )
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self: Any) -> tuple[int, int]:
        return self._data.__dlpack_device__()

    def __float__(self: Any) -> float:
        return float(self.item())

    def __int__(self: Any) -> int:
        return int(self.item())

    def __index__(self: Any) -> int:
        if self.dtype.kind not in "iub" or self.numel() != 1:
            raise TypeError(
                "index: only one integer is an index, got "
                f"dtype={self.dtype}, shape={self.shape}; convert it with .long()"
            )
        return int(self.item())

    def __bool__(self: Any) -> bool:
        if self.numel() != 1:
            raise ValueError(
                f"bool: a tensor of one element is true or false, got shape={self.shape}; "
                "use any() or all()"
            )
        return bool(self.item())

    def __format__(self: Any, spec: str) -> str:
        """As the number, of a tensor without dimensions: f"{loss:.3f}"."""
        return format(self.item(), spec) if self.ndim == 0 else object.__format__(self, spec)

    def to(
        self: Any, *target: Any, dtype: Any = None, device: Any = None, copy: bool = False
    ) -> Any:
        """In another dtype, on another device, or as another Tensor; itself if nothing changes.

        Gradients flow through. Raises TypeError for the dtype, ValueError for the name of the
        device, RuntimeError where it is missing.
        """
        for item in target:
            if isinstance(item, Conversions):
                dtype, device = item.dtype, item.device  # type: ignore[attr-defined]
            elif isinstance(item, str) and item.partition(":")[0] in ("cpu", "cuda"):
                device = item
            else:
                dtype = item
        result = self
        if device is not None and parse_device("to", device) != self.device:
            result = shape.Move.apply(result, device)
        if dtype is not None and checked_dtype("to", dtype, result.is_cuda) != result.dtype:
            result = shape.cast(result, np.dtype(dtype))
        return result.clone() if copy and result is self else result

    def cpu(self: Any) -> Any:
        return self.to("cpu")

    def cuda(self: Any, index: int = 0) -> Any:
        return self.to(f"cuda:{index}")

    def float(self: Any) -> Any:
        return self.to(np.float32)

    def double(self: Any) -> Any:
        return self.to(np.float64)

    def long(self: Any) -> Any:
        return self.to(np.int64)

    def bool(self: Any) -> Any:
        return self.to(np.bool_)

    def type_as(self: Any, other: Any) -> Any:
        return self.to(other.dtype)
