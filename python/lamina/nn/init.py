"""Initialisers, in place, from lamina's seeded generator; fan-in is the product of axes after 0.

All return the Tensor they fill and raise ValueError for shapes and options that do not fit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..random import generator
from ..tensor import Tensor


def _fans(tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise ValueError(
            f"init: fan in and fan out need 2 dimensions or more, got shape={tensor.shape}"
        )
    taps = math.prod(tensor.shape[2:])
    return tensor.shape[1] * taps, tensor.shape[0] * taps


def _rank(name: str, tensor: Tensor, ranks: tuple[int, ...]) -> None:
    if tensor.ndim not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise ValueError(f"{name}: needs {allowed} dimensions, got shape={tensor.shape}")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity."""
    gains = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}
    plain = [f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]
    if nonlinearity in ("linear", "sigmoid", *plain):
        return 1.0
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else float(param)
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}")
    return gains[nonlinearity]


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform in [a, b)."""
    if a > b:
        raise ValueError(f"uniform_: a must not be above b, got a={a}, b={b}")
    tensor.data[...] = generator().uniform(a, b, tensor.shape)
    return tensor


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal."""
    if std < 0:
        raise ValueError(f"normal_: std must not be negative, got std={std}")
    tensor.data[...] = generator().normal(mean, std, tensor.shape)
    return tensor


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Normal, drawn again outside [a, b]."""
    if not a < b or not std > 0:
        raise ValueError(f"trunc_normal_: needs a < b and std above 0, got a={a}, b={b}, std={std}")
    if a > mean + 8 * std or b < mean - 8 * std:
        raise ValueError(
            f"trunc_normal_: [a, b] must come within 8 std of the mean, got a={a}, b={b}, "
            f"mean={mean}, std={std}"
        )
    # The inverse of the distribution function between those of a and b, by bisection on erf.
    low, high = (0.5 * math.erfc(-(v - mean) / std / math.sqrt(2)) for v in (a, b))
    targets = generator().uniform(low, high, tensor.shape)
    below, above = np.full(tensor.shape, float(a)), np.full(tensor.shape, float(b))
    erfc = np.frompyfunc(math.erfc, 1, 1)
    for _ in range(60):
        middle = (below + above) / 2
        share = 0.5 * erfc(-(middle - mean) / std / math.sqrt(2)).astype(np.float64)
        low_half = share < targets
        below, above = np.where(low_half, middle, below), np.where(low_half, above, middle)
    tensor.data[...] = (below + above) / 2
    return tensor


def constant_(tensor: Tensor, val: float) -> Tensor:
    """All elements val."""
    tensor.data[...] = val
    return tensor


def ones_(tensor: Tensor) -> Tensor:
    """All elements 1."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """All elements 0."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix."""
    _rank("eye_", tensor, (2,))
    tensor.data[...] = np.eye(tensor.shape[0], tensor.shape[1])
    return tensor


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Filters that pass a channel on: 1 at the centre of channel i of filter i of each group."""
    _rank("dirac_", tensor, (3, 4, 5))
    if groups < 1 or tensor.shape[0] % groups:
        raise ValueError(
            f"dirac_: groups must divide the filters, got groups={groups}, shape={tensor.shape}"
        )
    per_group = tensor.shape[0] // groups
    centre = tuple(size // 2 for size in tensor.shape[2:])
    zeros_(tensor)
    for group in range(groups):
        for i in range(min(per_group, tensor.shape[1])):
            at = (group * per_group + i, i, *centre)
            tensor.data[at] = 1
    return tensor


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot & Bengio 2010."""
    bound = gain * math.sqrt(6.0 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Glorot & Bengio 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_fans(tensor))))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"kaiming: mode must be 'fan_in' or 'fan_out', got mode={mode!r}")
    fan = _fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """He et al. 2015."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """He et al. 2015."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def lecun_uniform_(tensor: Tensor) -> Tensor:
    """Variance 1 / fan in (LeCun et al. 1998)."""
    bound = math.sqrt(3.0 / _fans(tensor)[0])
    return uniform_(tensor, -bound, bound)


def lecun_normal_(tensor: Tensor) -> Tensor:
    """Variance 1 / fan in (LeCun et al. 1998)."""
    return normal_(tensor, 0.0, math.sqrt(1.0 / _fans(tensor)[0]))


def orthogonal_(tensor: Tensor, gain: float = 1) -> Tensor:
    """Orthonormal rows or columns of the matrix [shape[0], the rest] (Saxe et al. 2014)."""
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: needs 2 dimensions or more, got shape={tensor.shape}")
    if tensor.data.size == 0:
        return tensor
    rows, columns = tensor.shape[0], tensor.data.size // tensor.shape[0]
    normal = generator().normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    q *= np.sign(np.diagonal(r))  # makes the distribution uniform (Mezzadri 2007)
    tensor.data[...] = gain * (q if rows >= columns else q.T).reshape(tensor.shape)
    return tensor


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01) -> Tensor:
    """Normal columns with a share of zeros in each (Martens 2010)."""
    _rank("sparse_", tensor, (2,))
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparse_: sparsity must be from 0 to 1, got sparsity={sparsity}")
    normal_(tensor, 0.0, std)
    zeros = math.ceil(sparsity * tensor.shape[0])
    for column in range(tensor.shape[1]):
        tensor.data[generator().permutation(tensor.shape[0])[:zeros], column] = 0
    return tensor


def torch_default_(weight: Tensor, bias: Any) -> None:
    """What torch gives Linear and convolutions: both uniform within 1 / sqrt(fan in)."""
    bound = 1 / math.sqrt(_fans(weight)[0])
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)
