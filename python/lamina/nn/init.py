"""Initialisers, in place, from lamina's seeded generator; fan-in is the product of axes after 0.

All return the Tensor they fill. They raise TypeError for anything but a floating Tensor, ValueError
for shapes and options that do not fit, and for a read-only array. `generator` is a
`numpy.random.Generator`; without it they draw from the stream of `lamina.manual_seed`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import random
from ..autograd import no_grad
from ..functional._arguments import integer, one_of, real
from ..tensor import Tensor

_GAINS = {
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
    **dict.fromkeys(("linear", "sigmoid"), 1.0),
    **{f"conv{kind}{n}d": 1.0 for kind in ("", "_transpose") for n in (1, 2, 3)},
}


def _check(op: str, tensor: Any, ranks: tuple[int, ...] = ()) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = f"dtype={tensor.dtype}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{op}: tensor must be a floating Tensor, got {got}")
    if ranks and tensor.ndim not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise ValueError(f"{op}: tensor must have {allowed} dimensions, got shape={tensor.shape}")


def _fill(op: str, tensor: Tensor, values: Any) -> Tensor:
    with no_grad():
        tensor._writable(op)
        tensor.copy_(np.asarray(values))
    return tensor


def _source(op: str, generator: Any) -> np.random.Generator:
    if generator is None:
        return random.generator()
    if not isinstance(generator, np.random.Generator):
        raise TypeError(
            f"{op}: generator must be a numpy.random.Generator, got {type(generator).__name__}"
        )
    return generator


def _fans(op: str, tensor: Tensor) -> tuple[int, int]:
    """Fan in and fan out, 1 instead of 0: a zero-size tensor has nothing to fill."""
    _check(op, tensor)
    if tensor.ndim < 2:
        raise ValueError(
            f"{op}: fan in and fan out need 2 dimensions or more, got shape={tensor.shape}"
        )
    taps = math.prod(tensor.shape[2:])
    return max(tensor.shape[1] * taps, 1), max(tensor.shape[0] * taps, 1)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity."""
    op = "calculate_gain"
    if one_of(op, "nonlinearity", nonlinearity, ("leaky_relu", *_GAINS)) == "leaky_relu":
        slope = 0.01 if param is None else real(op, "param", param)
        return math.sqrt(2.0 / (1 + slope**2))
    return _GAINS[nonlinearity]


def _scale(op: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{op}: the scale must be finite, got {value}; use a finite gain or slope")
    return abs(value)


def _uniform(op: str, tensor: Tensor, limit: float, generator: Any) -> Tensor:
    bound = _scale(op, limit)
    return _fill(op, tensor, _source(op, generator).uniform(-bound, bound, tensor.shape))


def _normal(op: str, tensor: Tensor, spread: float, generator: Any) -> Tensor:
    std = _scale(op, spread)
    return _fill(op, tensor, _source(op, generator).normal(0.0, std, tensor.shape))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform from a to b."""
    op = "uniform_"
    _check(op, tensor)
    low, high = real(op, "a", a), real(op, "b", b)
    if not 0 <= high - low < math.inf:
        raise ValueError(f"{op}: a must not be above b, both finite, got a={a}, b={b}")
    return _fill(op, tensor, _source(op, generator).uniform(low, high, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Normal."""
    op = "normal_"
    _check(op, tensor)
    centre, spread = real(op, "mean", mean), real(op, "std", std)
    if not spread >= 0:
        raise ValueError(f"{op}: std must not be negative, got std={std}")
    return _fill(op, tensor, _source(op, generator).normal(centre, spread, tensor.shape))


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Tensor:
    """Normal, drawn again outside [a, b]."""
    op = "trunc_normal_"
    _check(op, tensor)
    centre, spread = real(op, "mean", mean), real(op, "std", std)
    low, high = real(op, "a", a), real(op, "b", b)
    if not (low < high and 0 < spread < math.inf and math.isfinite(centre)):
        raise ValueError(
            f"{op}: a must be below b, std above 0 and finite, got a={a}, b={b}, mean={mean}, "
            f"std={std}"
        )
    ends = (low - centre) / spread, (high - centre) / spread
    if ends[0] == math.inf or ends[1] == -math.inf:
        raise ValueError(
            f"{op}: [a, b] is infinitely many std away from the mean, got a={a}, b={b}, "
            f"mean={mean}, std={std}"
        )
    draws = _truncated(_source(op, generator), *ends, tensor.numel())
    values = np.clip(centre + spread * draws, low, high)  # rounding may leave [a, b]
    return _fill(op, tensor, values.reshape(tensor.shape))


def _truncated(source: np.random.Generator, low: float, high: float, count: int) -> np.ndarray:
    """Standard normal draws within [low, high], by rejection (Robert 1995).

    Proposals are normal where the interval holds a quarter of them. Elsewhere they are x of density
    exp(-near x) from the end nearest to 0 on, accepted with exp(-(x - near)^2 / 2), which happens
    every second time at least, however far out or narrow the interval is.
    """
    if low + high < 0:  # the mirrored interval, so that `near` is its lower end
        return -_truncated(source, -high, -low, count)
    near, length = max(low, 0.0), high - max(low, 0.0)
    share = (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2
    kept: list[np.ndarray] = []
    missing = count
    while missing:
        if share >= 0.25:
            x = source.standard_normal(missing)
            accepted = (x >= low) & (x <= high)
        elif low < 0:  # narrow and around 0
            x = source.uniform(low, high, missing)
            accepted = source.random(missing) <= np.exp(-x * x / 2)
        else:
            u = source.random(missing)
            beyond = u * length if near == 0 else -np.log1p(u * np.expm1(-near * length)) / near
            x = near + beyond
            accepted = source.random(missing) <= np.exp(-beyond * beyond / 2)
        kept.append(x[accepted])
        missing -= len(kept[-1])
    return np.concatenate(kept) if kept else np.empty(0)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """All elements val."""
    _check("constant_", tensor)
    return _fill("constant_", tensor, real("constant_", "val", val))


def ones_(tensor: Tensor) -> Tensor:
    """All elements 1."""
    _check("ones_", tensor)
    return _fill("ones_", tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """All elements 0."""
    _check("zeros_", tensor)
    return _fill("zeros_", tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix."""
    _check("eye_", tensor, (2,))
    return _fill("eye_", tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Filters that pass a channel on: 1 at the centre of channel i of filter i of each group."""
    op = "dirac_"
    _check(op, tensor, (3, 4, 5))
    if tensor.shape[0] % integer(op, "groups", groups, 1):
        raise ValueError(
            f"{op}: groups must divide the filters, got groups={groups}, shape={tensor.shape}"
        )
    per_group = tensor.shape[0] // groups
    centre = tuple(size // 2 for size in tensor.shape[2:])
    values = np.zeros(tensor.shape)
    if values.size:
        for k in range(tensor.shape[0]):
            if k % per_group < tensor.shape[1]:
                at = (k, k % per_group, *centre)
                values[at] = 1
    return _fill(op, tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform of variance 2 gain^2 / (fan in + fan out) (Glorot & Bengio 2010)."""
    op = "xavier_uniform_"
    bound = real(op, "gain", gain) * math.sqrt(6.0 / sum(_fans(op, tensor)))
    return _uniform(op, tensor, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal of variance 2 gain^2 / (fan in + fan out) (Glorot & Bengio 2010)."""
    op = "xavier_normal_"
    std = real(op, "gain", gain) * math.sqrt(2.0 / sum(_fans(op, tensor)))
    return _normal(op, tensor, std, generator)


def _kaiming_std(op: str, tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    one_of(op, "mode", mode, ("fan_in", "fan_out"))
    fan = _fans(op, tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Uniform of variance gain^2 / fan, a the slope of leaky_relu (He et al. 2015)."""
    op = "kaiming_uniform_"
    bound = math.sqrt(3.0) * _kaiming_std(op, tensor, a, mode, nonlinearity)
    return _uniform(op, tensor, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Normal of variance gain^2 / fan, a the slope of leaky_relu (He et al. 2015)."""
    op = "kaiming_normal_"
    return _normal(op, tensor, _kaiming_std(op, tensor, a, mode, nonlinearity), generator)


def lecun_uniform_(tensor: Tensor, generator: Any = None) -> Tensor:
    """Uniform of variance 1 / fan in (LeCun et al. 1998)."""
    op = "lecun_uniform_"
    return _uniform(op, tensor, math.sqrt(3.0 / _fans(op, tensor)[0]), generator)


def lecun_normal_(tensor: Tensor, generator: Any = None) -> Tensor:
    """Normal of variance 1 / fan in (LeCun et al. 1998)."""
    op = "lecun_normal_"
    return _normal(op, tensor, math.sqrt(1.0 / _fans(op, tensor)[0]), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """gain * orthonormal rows or columns of the matrix [shape[0], the rest] (Saxe et al. 2014)."""
    op = "orthogonal_"
    _check(op, tensor)
    scale = real(op, "gain", gain)
    if tensor.ndim < 2:
        raise ValueError(f"{op}: tensor must have 2 dimensions or more, got shape={tensor.shape}")
    rows = tensor.shape[0]
    columns = tensor.numel() // max(rows, 1)
    normal = _source(op, generator).normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    # With these signs all orthogonal matrices are equally likely (Mezzadri 2007).
    q *= np.where(np.diagonal(r) < 0, -1, 1)
    return _fill(op, tensor, scale * (q if rows >= columns else q.T).reshape(tensor.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal columns with ceil(sparsity * rows) zeros in each (Martens 2010)."""
    op = "sparse_"
    _check(op, tensor, (2,))
    share, spread = real(op, "sparsity", sparsity), real(op, "std", std)
    if not 0 <= share <= 1 or not spread >= 0:
        raise ValueError(
            f"{op}: sparsity must be from 0 to 1, std not negative, got sparsity={sparsity}, "
            f"std={std}"
        )
    source = _source(op, generator)
    values = source.normal(0.0, spread, tensor.shape)
    zeros = math.ceil(share * tensor.shape[0])
    # The first ranks of random keys are the rows of a random choice, column by column.
    chosen = source.random(tensor.shape).argsort(axis=0)[:zeros]
    np.put_along_axis(values, chosen, 0, axis=0)
    return _fill(op, tensor, values)


def torch_default_(weight: Tensor, bias: Any) -> None:
    """What torch gives Linear and convolutions: both uniform within 1 / sqrt(fan in)."""
    op = "torch_default_"
    fan_in = math.prod(weight.shape[1:])
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    _uniform(op, weight, bound, None)
    if bias is not None:
        _uniform(op, bias, bound, None)
