"""Comparisons, logic and tests of single elements: booleans without a gradient.

And the bits of integers; those of booleans are their logic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _C
from ..arrays import FLOATS, module_of
from ..autograd import Context, Function
from ..known import Known
from ._common import BOOL, NUMBERS, are_alike, as_array, is_known_array, promote, shapes_of


class Compare(Function):
    """A comparison or test; its boolean result carries no gradient."""

    @staticmethod
    def forward(ctx: Context, name: str, *operands: Any) -> Any:
        if len(operands) == 1:
            x = as_array(name, operands[0])
            return getattr(module_of(x), name)(x)
        a, b = promote(name, a=operands[0], b=operands[1])
        return getattr(module_of(a), name)(a, b)


def _compare(name: str, numpy_name: str) -> Callable[[Any, Any], Any]:
    known = Known(2, Compare, True, "copied")
    run = known.run

    def public(a: Any, b: Any) -> Any:
        y = run(a, b)
        if y is None:
            y = Compare.apply(numpy_name, a, b)
            if are_alike((a, b), (*NUMBERS, BOOL)):
                known.remember((a, b), y, _C.binary_call, (numpy_name, *shapes_of(a, b)), ())
        return y

    public.__name__ = public.__qualname__ = name
    public.__doc__ = f"Elementwise numpy.{numpy_name}, broadcast: booleans without a gradient."
    return public


def _test(name: str) -> Callable[[Any], Any]:
    known = Known(1, Compare, layouts="copied")
    run = known.run

    def public(x: Any) -> Any:
        y = run(x)
        if y is None:
            y = Compare.apply(name, x)
            if is_known_array(x, (*FLOATS, BOOL)):
                known.remember((x,), y, _C.unary_call, (name,), ())
        return y

    public.__name__ = public.__qualname__ = name
    public.__doc__ = f"Elementwise numpy.{name}: booleans without a gradient."
    return public


class Bitwise(Function):
    """Of integers; the result carries no gradient."""

    @staticmethod
    def forward(ctx: Context, name: str, *operands: Any) -> Any:
        named = dict(zip("ab" if len(operands) == 2 else "x", operands, strict=True))
        arrays = promote(name, **named)
        if arrays[0].dtype.kind == "f":
            raise TypeError(
                f"{name}: {' and '.join(named)} must be integers or booleans, got "
                f"dtype={arrays[0].dtype}; compare first, as in x > 0"
            )
        return module_of(arrays[0]).asarray(getattr(module_of(arrays[0]), name)(*arrays))


def _bitwise(name: str, logical: Callable[..., Any]) -> Callable[..., Any]:
    def public(*operands: Any) -> Any:
        if all(getattr(x, "dtype", type(x)) == BOOL for x in operands):
            return logical(*operands)
        return Bitwise.apply(name, *operands)

    public.__name__ = public.__qualname__ = name
    public.__doc__ = f"Elementwise numpy.{name} of integers or booleans, broadcast."
    return public


eq, ne = _compare("eq", "equal"), _compare("ne", "not_equal")
lt, le = _compare("lt", "less"), _compare("le", "less_equal")
gt, ge = _compare("gt", "greater"), _compare("ge", "greater_equal")
logical_and = _compare("logical_and", "logical_and")
logical_or = _compare("logical_or", "logical_or")
logical_xor = _compare("logical_xor", "logical_xor")
logical_not = _test("logical_not")
bitwise_and = _bitwise("bitwise_and", logical_and)
bitwise_or = _bitwise("bitwise_or", logical_or)
bitwise_xor = _bitwise("bitwise_xor", logical_xor)
bitwise_not = _bitwise("bitwise_not", logical_not)
isnan, isinf, isfinite = _test("isnan"), _test("isinf"), _test("isfinite")
