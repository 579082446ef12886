"""Tools to test operations with: gradients, tolerances, and data whose results are exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arrays import is_array
from .tensor import Tensor

_ALL_ELEMENTS = 64  # larger inputs are tested along random directions
_DIRECTIONS = 6


def tolerance(reduction: int, dtype: Any, factor: float = 1.0) -> float:
    """The error of a sum of `reduction` products, relative to the sum of their absolute values.

    The bound reduction * eps holds for every order of summation: each term is rounded once by its
    product and at most reduction - 1 times by the sums, by eps / 2 each (Higham, Accuracy and
    Stability of Numerical Algorithms, 2002, section 3.1), which leaves a factor of two. `factor`
    is for algorithms that do more, such as Winograd's transforms.
    """
    return float(factor * max(int(reduction), 1) * np.finfo(dtype).eps)


def integer_array(
    shape: Any, seed: int = 0, low: int = -4, high: int = 4, dtype: Any = np.float32
) -> np.ndarray:
    """Whole numbers from low to high, both included: their sums and products are exact.

    Exact while the sum of absolute products stays below 2**24 (float32) or 2**53 (float64).
    """
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(dtype)


def _strided(x: np.ndarray) -> np.ndarray:
    """The values of x in memory that is neither contiguous nor in ascending order."""
    if x.ndim == 0:
        return x.copy()
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
    view = wide[..., 1::2][..., ::-1]
    view[...] = x
    return view


def _outputs(result: Any) -> list[Tensor]:
    """The differentiable results of a call."""
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [y for y in results if isinstance(y, Tensor) and y.is_floating_point()]


def _gradients(
    fn: Callable[..., Any], arrays: list[Any], chosen: list[int], seed: int
) -> list[np.ndarray]:
    """What backward says, for the sum of all results times fixed random weights."""
    arguments = [
        Tensor(x, requires_grad=i in chosen) if is_array(x) else x for i, x in enumerate(arrays)
    ]
    outputs = [y for y in _outputs(fn(*arguments)) if y.requires_grad]
    if not outputs:
        raise AssertionError("gradcheck: no result of fn requires a gradient")
    total: Any = None
    for y, weight in zip(outputs, _weights(outputs, seed), strict=True):
        term = (y * weight).sum()
        total = term if total is None else total + term
    total.backward()
    found = [arguments[i].grad for i in chosen]
    return [
        np.zeros(arrays[i].shape) if gradient is None else gradient.numpy()
        for i, gradient in zip(chosen, found, strict=True)
    ]


def _weights(outputs: list[Tensor], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [np.asarray(generator.uniform(0.5, 1.5, y.shape)) for y in outputs]


def gradcheck(
    fn: Callable[..., Any],
    inputs: Sequence[Any],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
) -> bool:
    """Compares backward with central differences in float64, also on non-contiguous inputs.

    `fn` takes the inputs as Tensors and returns a Tensor or several. Floating arrays are copied to
    float64 and differentiated (Tensors only if they require a gradient); everything else is passed
    on. Every element is moved by `eps`, or, in an input of more than 64, six random directions.

    Returns True. Raises AssertionError, showing both gradients, where they differ by more than
    atol + rtol * |numerical|, TypeError for inputs with nothing to differentiate.
    """
    arrays: list[Any] = []
    chosen: list[int] = []
    for i, x in enumerate(inputs):
        array = x.data if isinstance(x, Tensor) else x
        if is_array(array) and array.dtype.kind == "f":
            array = np.array(array, np.float64)
            if not isinstance(x, Tensor) or x.requires_grad:
                chosen.append(i)
        arrays.append(array)
    if not chosen:
        raise TypeError("gradcheck: inputs must hold a floating array to differentiate, got none")

    def loss(moved: int, values: np.ndarray) -> float:
        arguments = [Tensor(x) if is_array(x) else x for x in arrays]
        arguments[moved] = Tensor(values)
        outputs = _outputs(fn(*arguments))
        return math.fsum(
            float((y.numpy() * weight).sum())
            for y, weight in zip(outputs, _weights(outputs, seed), strict=True)
        )

    analytic = _gradients(fn, arrays, chosen, seed)
    strided = [_strided(x) if i in chosen else x for i, x in enumerate(arrays)]
    for i, expected, got in zip(
        chosen, analytic, _gradients(fn, strided, chosen, seed), strict=True
    ):
        _compare(f"inputs[{i}], non-contiguous", got, expected, atol, rtol)
    for i, gradient in zip(chosen, analytic, strict=True):
        x = arrays[i]
        directions = _directions(x, seed)
        numerical = np.array(
            [(loss(i, x + eps * d) - loss(i, x - eps * d)) / (2 * eps) for d in directions]
        )
        projected = np.array([float((gradient * d).sum()) for d in directions])
        _compare(f"inputs[{i}]", projected, numerical, atol, rtol)
    return True


def _directions(x: np.ndarray, seed: int) -> list[np.ndarray]:
    if x.size <= _ALL_ELEMENTS:
        return [unit.reshape(x.shape) for unit in np.eye(x.size)]
    generator = np.random.default_rng(seed + 1)
    return [generator.standard_normal(x.shape) for _ in range(_DIRECTIONS)]


def _compare(what: str, got: np.ndarray, expected: np.ndarray, atol: float, rtol: float) -> None:
    if not np.allclose(got, expected, rtol=rtol, atol=atol, equal_nan=True):
        raise AssertionError(
            f"gradcheck: the gradients of {what} differ\nbackward:\n{got}\nexpected:\n{expected}"
        )
