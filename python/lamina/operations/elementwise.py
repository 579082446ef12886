"""Arithmetic and functions of single elements, with broadcasting.

At the kinks the gradients are those of torch: equal values share the gradient of maximum and
minimum, abs and sign have 0 at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _C
from ..arrays import FLOATS, asarray, empty, empty_like, is_ready, module_of
from ..autograd import Context, Function
from ..known import Known
from ._common import (
    NUMBERS,
    are_alike,
    as_array,
    as_float,
    is_known_array,
    promote,
    shapes_of,
    unbroadcast,
)


class _Binary(Function):
    """y = compute(a, b); `slopes` gives the gradients of a and b, made when called."""

    op: str | None = None  # for messages, where it is not the name of the class

    @classmethod
    def forward(cls, ctx: Context, a: Any, b: Any) -> Any:
        if not (is_ready(a) and is_ready(b) and a.shape == b.shape and a.dtype == b.dtype):
            a, b = promote(cls.op or cls.__name__.lower(), a=a, b=b)
        ctx.shapes = (a.shape, b.shape)
        y = cls.compute(ctx, module_of(a), a, b)
        return y if y.ndim else module_of(a).asarray(y)

    @staticmethod
    def compute(ctx: Context, xp: Any, a: Any, b: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def backward(cls, ctx: Context, grad_y: Any) -> Any:
        grads = cls.slopes(ctx, module_of(grad_y), grad_y)
        return tuple(
            unbroadcast(gradient(), shape) if need else None
            for gradient, shape, need in zip(grads, ctx.shapes, ctx.needs_input_grad, strict=True)
        )

    @staticmethod
    def slopes(ctx: Context, xp: Any, grad_y: Any) -> tuple[Callable[[], Any], ...]:
        raise NotImplementedError


def _room(a: Any, b: Any) -> Any:
    """Recycled memory for the result where it pays, else None: NumPy then makes its own."""
    if a.shape != b.shape or a.nbytes < 1 << 16 or not (is_ready(a) and is_ready(b)):
        return None
    return empty("elementwise", a.shape, a.dtype)


class Add(_Binary):
    @staticmethod
    def compute(ctx, xp, a, b):
        return a | b if a.dtype == bool else xp.add(a, b, out=_room(a, b))

    @staticmethod
    def slopes(ctx, xp, grad_y):
        return (lambda: grad_y), (lambda: grad_y)


class Sub(_Binary):
    @staticmethod
    def compute(ctx, xp, a, b):
        if a.dtype == bool:
            raise TypeError("sub: a and b must not both be boolean, got dtype=bool; use a ^ b")
        return xp.subtract(a, b, out=_room(a, b))

    @staticmethod
    def slopes(ctx, xp, grad_y):
        return (lambda: grad_y), (lambda: -grad_y)


class Mul(_Binary):
    @staticmethod
    def compute(ctx, xp, a, b):
        need_a, need_b = ctx.needs_input_grad
        ctx.save_for_backward(a if need_b else None, b if need_a else None)
        return xp.multiply(a, b, out=_room(a, b))

    @staticmethod
    def slopes(ctx, xp, grad_y):
        a, b = ctx.saved
        return (lambda: grad_y * b), (lambda: grad_y * a)


class Div(_Binary):
    @staticmethod
    def compute(ctx, xp, a, b):
        if a.dtype.kind != "f":
            a, b = a.astype(np.float32), b.astype(np.float32)
        ctx.save_for_backward(a if ctx.needs_input_grad[1] else None, b)
        return a / b

    @staticmethod
    def slopes(ctx, xp, grad_y):
        a, b = ctx.saved
        return (lambda: grad_y / b), (lambda: -grad_y * ((a / b) / b))


def _refuse_divisor(op: str, a: Any, b: Any) -> None:
    if a.dtype == bool:
        raise TypeError(f"{op}: a and b must not both be boolean, got dtype=bool; convert one")
    if b.dtype.kind != "f" and (b == 0).any():
        raise ValueError(f"{op}: b must not be 0 where both are integers; convert one to float")


def _by_kernel(name: str, other: Callable[..., Any], *operands: Any) -> Any:
    """Arrays of NumPy in C order by a kernel, else other(*operands)."""
    if not all(map(is_ready, operands)):
        return other(*operands)
    y = empty(name, np.broadcast_shapes(*[x.shape for x in operands]), operands[0].dtype)
    _C.elementwise(name, operands[0], operands[1] if len(operands) > 1 else None, y)
    return y


class FloorDivide(_Binary):
    """Constant between jumps: the gradients are zero, which torch has for div only."""

    op = "floor_divide"

    @staticmethod
    def compute(ctx, xp, a, b):
        _refuse_divisor("floor_divide", a, b)
        return _by_kernel("floor_divide", xp.floor_divide, a, b)

    @staticmethod
    def slopes(ctx, xp, grad_y):
        zeros = xp.zeros_like(grad_y)
        return (lambda: zeros), (lambda: zeros)


class Remainder(_Binary):
    @staticmethod
    def compute(ctx, xp, a, b):
        _refuse_divisor("remainder", a, b)
        ctx.save_for_backward(*((a, b) if ctx.needs_input_grad[1] else ()))
        return _by_kernel("remainder", xp.remainder, a, b)

    @staticmethod
    def slopes(ctx, xp, grad_y):
        return (lambda: grad_y), (
            lambda: -grad_y * _by_kernel("floor_divide", xp.floor_divide, *ctx.saved)
        )


class Pow(_Binary):
    @staticmethod
    def compute(ctx, xp, a, b):
        y = a**b
        ctx.save_for_backward(a, b, y)
        return y

    @staticmethod
    def slopes(ctx, xp, grad_y):
        a, b, y = ctx.saved
        return (
            lambda: xp.where(b == 0, 0, grad_y * (b * a ** (b - 1))).astype(grad_y.dtype),
            # 0**b is constant for b >= 0, although log(0) is not finite.
            lambda: xp.where((a == 0) & (b >= 0), 0, grad_y * (y * xp.log(a))).astype(grad_y.dtype),
        )


class _Extremum(_Binary):
    """Equal operands share the gradient; beside a NaN both get it, as the result is NaN."""

    @classmethod
    def compute(cls, ctx, xp, a, b):
        ctx.save_for_backward(a, b)
        return getattr(xp, cls.__name__.lower())(a, b)

    @classmethod
    def slopes(cls, ctx, xp, grad_y):
        a, b = ctx.saved
        shared = xp.where(a == b, grad_y * grad_y.dtype.type(0.5), grad_y)
        a_loses, b_loses = (a < b, b < a) if cls is Maximum else (b < a, a < b)
        zero = grad_y.dtype.type(0)
        return (lambda: xp.where(a_loses, zero, shared)), (lambda: xp.where(b_loses, zero, shared))


class Maximum(_Extremum):
    pass


class Minimum(_Extremum):
    pass


class _Unary(Function):
    """y = compute(x), dy/dx = slope(saved), with `saves` naming what the slope reads: x or y.

    Without a slope y is constant between jumps.
    """

    saves = "x"
    slope: Callable[..., Any] | None

    @classmethod
    def forward(cls, ctx: Context, x: Any) -> Any:
        if not is_ready(x):
            x = as_float(cls.__name__.lower(), x)
        xp = module_of(x)
        y = xp.asarray(cls.compute(xp, x), x.dtype)
        ctx.save_for_backward(x if cls.saves == "x" else y)
        return y

    @staticmethod
    def compute(xp: Any, x: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def backward(cls, ctx: Context, grad_y: Any) -> Any:
        if cls.slope is None:
            return module_of(grad_y).zeros_like(grad_y)
        (saved,) = ctx.saved
        return grad_y * cls.slope(module_of(saved), saved).astype(grad_y.dtype)


def _unary(
    name: str, compute: Callable[..., Any], slope: Callable[..., Any] | None, saves: str, doc: str
) -> Callable[[Any], Any]:
    """The public function of one elementwise Function."""
    function: Any = type(
        name.capitalize(),
        (_Unary,),
        {"compute": staticmethod(compute), "slope": slope and staticmethod(slope), "saves": saves},
    )
    known = Known(1, function, layouts="copied")
    run = known.run

    def public(x: Any) -> Any:
        y = run(x)
        if y is None:
            y = function.apply(x)
            if is_known_array(x, FLOATS):
                known.remember((x,), y, _C.unary_call, (name,), ())
        return y

    public.__name__ = public.__qualname__ = name
    public.__doc__ = f"{doc} Integers become float32. Raises TypeError for other data."
    return public


exp = _unary("exp", lambda xp, x: xp.exp(x), lambda xp, y: y, "y", "e**x.")
expm1 = _unary(
    "expm1", lambda xp, x: xp.expm1(x), lambda xp, y: y + 1, "y", "e**x - 1, exact near 0."
)
log = _unary("log", lambda xp, x: xp.log(x), lambda xp, x: 1 / x, "x", "Natural logarithm.")
log2 = _unary(
    "log2",
    lambda xp, x: xp.log2(x),
    lambda xp, x: 1 / (x * math.log(2.0)),
    "x",
    "Logarithm, base 2.",
)
log1p = _unary(
    "log1p", lambda xp, x: xp.log1p(x), lambda xp, x: 1 / (1 + x), "x", "log(1 + x), exact near 0."
)
sqrt = _unary("sqrt", lambda xp, x: xp.sqrt(x), lambda xp, y: 0.5 / y, "y", "Square root.")
rsqrt = _unary(
    "rsqrt",
    lambda xp, x: _by_kernel("rsqrt", lambda x: 1 / xp.sqrt(x), x),
    lambda xp, y: -0.5 * (y * y * y),
    "y",
    "1 / sqrt(x).",
)
_cube = _unary(
    "cube",
    lambda xp, x: _by_kernel("cube", lambda x: x * x * x, x),
    lambda xp, x: 3 * (x * x),
    "x",
    "x**3.",
)
_inverse_square = _unary(
    "inverse_square",
    lambda xp, x: _by_kernel("inverse_square", lambda x: 1 / (x * x), x),
    lambda xp, x: -2 / (x * x * x),
    "x",
    "x**-2.",
)
sin = _unary("sin", lambda xp, x: xp.sin(x), lambda xp, x: xp.cos(x), "x", "Sine.")
cos = _unary("cos", lambda xp, x: xp.cos(x), lambda xp, x: -xp.sin(x), "x", "Cosine.")
tanh = _unary(
    "tanh", lambda xp, x: xp.tanh(x), lambda xp, y: 1 - y * y, "y", "Tangens hyperbolicus."
)
floor = _unary("floor", lambda xp, x: xp.floor(x), None, "x", "Rounds down.")
ceil = _unary("ceil", lambda xp, x: xp.ceil(x), None, "x", "Rounds up.")
round = _unary("round", lambda xp, x: xp.rint(x), None, "x", "Rounds to the nearest, ties to even.")


class Sigmoid(Function):
    kernels_only = True
    gradients_are_new = True

    @staticmethod
    def forward(ctx: Context, x: Any) -> Any:
        x = asarray("sigmoid", "x", as_float("sigmoid", x))
        ctx.save_for_backward(x)
        y = empty_like("sigmoid", x)
        _C.activation("sigmoid", 1.0, 0.0, x, None, y)
        return y

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        (x,) = ctx.saved
        grad_x = empty_like("sigmoid", x)
        _C.activation("sigmoid", 1.0, 0.0, x, asarray("sigmoid", "grad_y", grad_y), grad_x)
        return grad_x


class Neg(Function):
    @staticmethod
    def forward(ctx: Context, x: Any) -> Any:
        x = as_array("neg", x)
        if x.dtype == bool:
            raise TypeError("neg: x must be a number, got x.dtype=bool; use ~x")
        return module_of(x).asarray(-x)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return -grad_y


class Abs(Function):
    @staticmethod
    def forward(ctx: Context, x: Any) -> Any:
        x = as_array("abs", x)
        ctx.save_for_backward(x)
        return module_of(x).abs(x)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        (x,) = ctx.saved
        return grad_y * module_of(x).sign(x)


class Sign(Function):
    @staticmethod
    def forward(ctx: Context, x: Any) -> Any:
        x = as_array("sign", x)
        return _by_kernel("sign", module_of(x).sign, x)

    @staticmethod
    def backward(ctx: Context, grad_y: Any) -> Any:
        return module_of(grad_y).zeros_like(grad_y)


_known_pairs = {
    "add": Known(2, Add, True, "copied"),
    "subtract": Known(2, Sub, True, "copied"),
    "multiply": Known(2, Mul, True, "copied"),
    "divide": Known(2, Div, True, "copied"),
    "maximum": Known(2, Maximum, True, "copied"),
    "minimum": Known(2, Minimum, True, "copied"),
}
_known_of_floats = {
    "floor_divide": Known(2, FloorDivide, True, "copied"),
    "remainder": Known(2, Remainder, True, "copied"),
    "power": Known(2, Pow, True, "copied"),
}
_known_negatives = Known(1, Neg, layouts="copied")
_known_absolutes = Known(1, Abs, layouts="copied")
_known_signs = Known(1, Sign, layouts="copied")
_known_sigmoids = Known(1, Sigmoid, layouts="copied")


def _pair(op: str, function: type[Function], a: Any, b: Any) -> Any:
    """A call that is not known yet; op is NumPy's name. It is from now on if the compiled loops

    take its operands: arrays of one dtype that y has too, or numbers.
    """
    y = function.apply(a, b)
    if are_alike((a, b), (y.dtype,)) and y.dtype in NUMBERS:
        _known_pairs[op].remember((a, b), y, _C.binary_call, (op, *shapes_of(a, b)), ())
    return y


def _pair_of_floats(op: str, function: type[Function], a: Any, b: Any) -> Any:
    """The same where integers are left to NumPy."""
    known = _known_of_floats[op]
    y = known.run(a, b)
    if y is None:
        y = function.apply(a, b)
        if are_alike((a, b), (y.dtype,)) and y.dtype in FLOATS:
            known.remember((a, b), y, _C.binary_call, (op, *shapes_of(a, b)), ())
    return y


_run_add, _run_sub, _run_mul, _run_div, _run_maximum, _run_minimum = (
    known.run for known in _known_pairs.values()
)


def add(a: Any, b: Any) -> Any:
    """a + b, broadcast. Raises ValueError for the shapes, TypeError for other data."""
    y = _run_add(a, b)
    return _pair("add", Add, a, b) if y is None else y


def sub(a: Any, b: Any) -> Any:
    """a - b, broadcast. Raises ValueError for the shapes, TypeError for other data."""
    y = _run_sub(a, b)
    return _pair("subtract", Sub, a, b) if y is None else y


def mul(a: Any, b: Any) -> Any:
    """a * b, broadcast. Raises ValueError for the shapes, TypeError for other data."""
    y = _run_mul(a, b)
    return _pair("multiply", Mul, a, b) if y is None else y


def div(a: Any, b: Any) -> Any:
    """a / b, broadcast; integers become float32. Raises as `add`."""
    y = _run_div(a, b)
    return _pair("divide", Div, a, b) if y is None else y


def floor_divide(a: Any, b: Any) -> Any:
    """a / b rounded down, broadcast. Raises as `add`, ValueError for integers by 0."""
    return _pair_of_floats("floor_divide", FloorDivide, a, b)


def remainder(a: Any, b: Any) -> Any:
    """a - b * floor(a / b), which has the sign of b, broadcast. Raises as `floor_divide`."""
    return _pair_of_floats("remainder", Remainder, a, b)


_POWERS: dict[float, Callable[[Any], Any]] = {
    3: _cube,
    0.5: sqrt,
    -0.5: rsqrt,
    -2: _inverse_square,
}


def pow(a: Any, b: Any) -> Any:
    """a ** b, broadcast. Raises as `add`."""
    if type(b) in (int, float) and getattr(a, "dtype", None) in FLOATS:
        if b == 2:
            return mul(a, a)
        if b == -1:
            return div(1, a)
        if b in _POWERS:
            return _POWERS[b](a)
        if b in (0, 1):  # NumPy has other loops for them
            return Pow.apply(a, b)
    return _pair_of_floats("power", Pow, a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of a and b, broadcast; NaN if either is. Equal values share the gradient."""
    y = _run_maximum(a, b)
    return _pair("maximum", Maximum, a, b) if y is None else y


def minimum(a: Any, b: Any) -> Any:
    """The smaller of a and b, broadcast; NaN if either is. Equal values share the gradient."""
    y = _run_minimum(a, b)
    return _pair("minimum", Minimum, a, b) if y is None else y


def neg(x: Any) -> Any:
    """-x. Raises TypeError for booleans."""
    y = _known_negatives.run(x)
    if y is not None:
        return y
    y = Neg.apply(x)
    if is_known_array(x, FLOATS):
        _known_negatives.remember((x,), y, _C.negate_call, (), ())
    return y


def abs(x: Any) -> Any:
    """|x|, with the gradient 0 at 0."""
    y = _known_absolutes.run(x)
    if y is not None:
        return y
    y = Abs.apply(x)
    if is_known_array(x, FLOATS):
        _known_absolutes.remember((x,), y, _C.unary_call, ("abs",), ())
    return y


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)). Integers become float32. Raises TypeError for other data."""
    y = _known_sigmoids.run(x)
    if y is not None:
        return y
    y = Sigmoid.apply(x)
    if is_known_array(x, FLOATS):
        _known_sigmoids.remember((x,), y, _C.activation_call, ("sigmoid", 1.0, 0.0), ())
    return y


def sign(x: Any) -> Any:
    """-1, 0 or 1; NaN for NaN. The gradient is zero."""
    y = _known_signs.run(x)
    if y is None:
        y = Sign.apply(x)
        if is_known_array(x, FLOATS):
            _known_signs.remember((x,), y, _C.unary_call, ("sign",), ())
    return y


def square(x: Any) -> Any:
    """x * x."""
    return mul(x, x)
