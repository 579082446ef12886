"""Calls that were checked before go to their kernel at once (csrc/bindings/calls.h)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _C
from .arrays import is_array
from .autograd import Function


class Known:
    """The checked calls of one function, whose first `operands` arguments are arrays.

    `run(*asked)` gives the result of a known call: one whose operands are arrays that kernels read
    as they are, or of int64 or booleans, or Tensors of such, with the shapes and dtypes of an
    earlier call, and whose other arguments equal that call's. Anything else gives None.
    """

    def __init__(
        self,
        operands: int,
        function: type[Function],
        numbers: bool = False,
        layouts: str = "refused",
    ) -> None:
        """numbers: floats and integers may be operands beside floating arrays.

        layouts: arrays that are not in C order are no operands ("refused"), or their elements are
        "copied"; matrices in the order of their columns may be operands "transposed".
        """
        self.run, self._store = _C.calls(operands, function, numbers, layouts)

    def remember(
        self,
        asked: tuple[Any, ...],
        y: Any,
        make: Callable[..., Any],
        rest: tuple[Any, ...],
        record: tuple[Any, ...],
    ) -> Any:
        """Leaves make(shape of y, *rest) for the next call of this kind; returns y.

        `record` is what the Function takes after the operands, where a gradient is recorded.
        """
        array = y if is_array(y) else y.data
        if array.size:
            self._store(asked, array, make(array.shape, *rest), record)
        return y

    def first(
        self,
        asked: tuple[Any, ...],
        dtype: Any,
        shape: tuple[int, ...],
        make: Callable[..., Any],
        rest: tuple[Any, ...],
    ) -> Any:
        """Leaves make(shape of the result, *rest), runs it and gives the result of `dtype`.

        None where the call, whose arguments the function checked, is no known one or found fault
        with the values of an array.
        """
        if 0 in shape:
            return None
        self._store(asked, np.empty(0, dtype), make(shape, *rest), ())
        return self.run(*asked)
