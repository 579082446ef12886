"""What a benchmark of one layer runs: kernels, peer, and the NumPy result they must reproduce."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import lamina

from .. import _C
from .. import functional as F
from ..functional.conv import Geometry, conv_shape
from .definitions import DEFINITIONS, Definition
from .layers import ConvLayer, PlainLayer

# Over the layers here, correct kernels stay below 2e-6, and PyTorch's below 3e-6.
ERROR_BOUND = 1e-5
# The directional derivative's step in float64. It is short, for the kinks of max pooling and ReLU:
# of a million elements, hardly one passes its kink. The cost, eps / STEP, is far below the bound.
STEP = 1e-8

CONV_PASSES = ("fprop", "dgrad", "wgrad")
PLAIN_PASSES = ("fprop", "train")  # forward, and forward + backward


class Job(NamedTuple):
    """One pass of one layer: `error` judges what a candidate returns, against NumPy in float64."""

    candidates: dict[str, Callable[[], Any]]
    error: Callable[[Any], float]
    flops: float
    moved: int  # bytes of operands and result, each once


def relative_error(y: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square error over the expected values' standard deviation."""
    if y.shape != expected.shape:
        return float("inf")
    return float(np.sqrt(np.mean((y - expected) ** 2)) / max(expected.std(), 1e-30))


def passes_of(layer: ConvLayer | PlainLayer) -> tuple[str, ...]:
    """The passes that a layer of this kind has."""
    return CONV_PASSES if isinstance(layer, ConvLayer) else PLAIN_PASSES


class _Torch:
    """torch.nn.functional, and torch itself for the recurrent cells."""

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch.nn.functional, name, None) or getattr(torch, name)


def _import_torch() -> Any:
    import torch

    torch.set_num_threads(lamina.get_num_threads())
    return torch


# Convolution


def _columns(x: np.ndarray, layer: ConvLayer) -> np.ndarray:
    """x as [N, groups, C / groups * R * S, P * Q] in float64."""
    p, s, r, g = layer.padding, layer.stride, layer.kernel, layer.groups
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (r, r), (2, 3))[:, :, ::s, ::s]
    n, c, height, width = windows.shape[:4]
    return windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, g, c // g * r * r, height * width)


def _planes(columns: np.ndarray, layer: ConvLayer, batch: int) -> np.ndarray:
    """The transpose of `_columns`."""
    p, s, r = layer.padding, layer.stride, layer.kernel
    out = layer.y_shape(batch)[2]
    taps = columns.reshape(batch, layer.c, r, r, out, out)
    size = layer.size + 2 * p
    padded = np.zeros((batch, layer.c, size, size))
    for i in range(r):
        for j in range(r):
            padded[:, :, i : i + s * out : s, j : j + s * out : s] += taps[:, :, i, j]
    return padded[:, :, p : size - p, p : size - p]


def _conv_expected(
    pass_: str, layer: ConvLayer, x: np.ndarray, weight: np.ndarray, grad_y: np.ndarray
) -> np.ndarray:
    n, g = x.shape[0], layer.groups
    rows = weight.astype(np.float64).reshape(g, layer.k // g, -1)
    y = grad_y.astype(np.float64).reshape(n, g, layer.k // g, -1)
    if pass_ == "fprop":
        return (rows @ _columns(x, layer)).reshape(grad_y.shape)
    if pass_ == "wgrad":
        return (y @ _columns(x, layer).swapaxes(2, 3)).sum(0).reshape(weight.shape)
    return _planes(rows.swapaxes(1, 2) @ y, layer, n)


def _torch_conv(
    pass_: str,
    layer: ConvLayer,
    x: np.ndarray,
    weight: np.ndarray,
    grad_y: np.ndarray,
    transposed: bool,
) -> Callable[[], Any]:
    torch = _import_torch()
    tx, tw, ty = (torch.from_numpy(a) for a in (x, weight, grad_y))
    options = layer.stride, layer.padding, 1, layer.groups

    def run() -> Any:
        with torch.no_grad():
            if pass_ == "fprop":
                return torch.nn.functional.conv2d(tx, tw, None, *options).numpy()
            if transposed and pass_ == "dgrad":
                y = torch.nn.functional.conv_transpose2d(
                    ty, tw, None, layer.stride, layer.padding, 0, layer.groups
                )
                return y.numpy()
            if pass_ == "dgrad":
                return torch.nn.grad.conv2d_input(tx.shape, tw, ty, *options).numpy()
            return torch.nn.grad.conv2d_weight(tx, tw.shape, ty, *options).numpy()

    return run


def conv_job(layer: ConvLayer, pass_: str, batch: int, ref: bool, torch: bool) -> Job:
    """Every algorithm that can run the pass, each writing into an array of its own."""
    transposed = layer.transposed
    if transposed:
        # Forward is the underlying convolution's input gradient, and the other way round.
        pass_ = {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad"}[pass_]
        layer = layer.underlying
    rng = np.random.default_rng(0)
    shapes = layer.x_shape(batch), layer.weight_shape, layer.y_shape(batch)
    x, weight, grad_y = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    pads = ((layer.padding,) * 2,) * 2
    geometry = Geometry("bench", (layer.stride,) * 2, pads, (1, 1), layer.groups, "auto", -1)
    shape = conv_shape(geometry, x.shape, weight.shape)
    inputs = {
        "fprop": (x, weight, None, None),
        "dgrad": (None, weight, None, grad_y),
        "wgrad": (x, None, None, grad_y),
    }[pass_]
    result = {"fprop": grad_y, "dgrad": x, "wgrad": weight}[pass_]
    candidates: dict[str, Callable[[], Any]] = {}
    for kernel in lamina.kernels("conv", pass_):
        if kernel.backend not in (("ref", "cpu") if ref else ("cpu",)):  # what this CPU is timed on
            continue

        def run(kernel: Any = kernel, out: Any = np.empty_like(result)) -> Any:  # noqa: B008
            with lamina.backend(kernel.backend):
                _C.conv("bench", pass_, shape, *inputs, out, kernel.algo, -1)
            return out

        with lamina.backend(kernel.backend):
            try:
                _C.conv_plan("bench", pass_, shape, kernel.algo)
            except ValueError:
                continue  # refused: this algorithm cannot run this layer
        candidates[f"{kernel.backend}.{kernel.algo}"] = run
    if torch:
        candidates["torch"] = _torch_conv(pass_, layer, x, weight, grad_y, transposed)
    expected = _conv_expected(pass_, layer, x, weight, grad_y)
    return Job(
        candidates,
        lambda y: relative_error(y, expected),
        2.0 * shape.macs,
        x.nbytes + weight.nbytes + grad_y.nbytes,
    )


# Everything else


def _slope(
    definition: Definition, arrays: list[np.ndarray], grad_y: np.ndarray
) -> tuple[list[np.ndarray], float]:
    """A direction in the space of inputs, and the derivative of sum(y * grad_y) along it."""
    rng = np.random.default_rng(1)
    directions = [rng.normal(size=a.shape) for a in arrays]
    ends = [
        definition.formula(*(a + sign * STEP * d for a, d in zip(arrays, directions, strict=True)))
        for sign in (1, -1)
    ]
    return directions, float(((ends[0] - ends[1]) * grad_y).sum() / (2 * STEP))


def _plain_error(
    definition: Definition, arrays: list[np.ndarray], grad_y: np.ndarray, train: bool
) -> Callable[[Any], float]:
    """The error of (y, gradients): the larger of y's and that of the gradients' slope.

    A slope is a sum of independent terms gradient * direction: its rounding error is compared
    with the gradients' norm.
    """
    double = [a.astype(np.float64) for a in arrays]
    expected = definition.formula(*double)
    directions, slope = _slope(definition, double, grad_y) if train else ([], 0.0)

    def error(result: tuple[np.ndarray, list[np.ndarray]]) -> float:
        y, gradients = result
        found = relative_error(y, expected)
        if not train:
            return found
        ours = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        norm = sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients) ** 0.5
        return max(found, abs(ours - slope) / max(norm, 1e-30))

    return error


def _candidate(
    call: Callable[..., Any], make: Callable[..., Any], seed: Any, train: bool
) -> Callable[[], Any]:
    """Runs forward, and backward from `seed` if asked; returns (y, gradients) as arrays."""

    def run() -> Any:
        inputs = make()
        y = call(*inputs)
        if train:
            y.backward(seed)
        return y.detach().numpy(), [x.grad.numpy() for x in inputs] if train else []

    return run


def _spread(index: int, shape: tuple[int, ...]) -> float:
    """Weights [out, in] as initialisers draw them: otherwise every gate would be saturated."""
    return shape[1] ** -0.5 if index and len(shape) == 2 else 1.0


def plain_job(layer: PlainLayer, pass_: str, batch: int, ref: bool, torch: bool) -> Job:
    """The layer's definition on both backends; "train" adds the gradients of all inputs."""
    rng = np.random.default_rng(0)
    arrays = [
        (rng.normal(size=size) * _spread(i, size)).astype(np.float32)
        for i, size in enumerate(layer.input_shapes(batch))
    ]
    definition = DEFINITIONS[layer.definition]
    shape = definition.formula(*arrays).shape
    grad_y = rng.normal(size=shape).astype(np.float32)
    train = pass_ == "train"
    candidates: dict[str, Callable[[], Any]] = {}
    for kernel in lamina.kernels(definition.op or layer.definition, "fprop"):
        if kernel.backend not in (("ref", "cpu") if ref else ("cpu",)):  # what this CPU is timed on
            continue
        run = _candidate(
            lambda *inputs: definition.call(F, "auto", *inputs),
            lambda: [lamina.Tensor(a, requires_grad=train) for a in arrays],
            grad_y,
            train,
        )
        candidates[f"{kernel.backend}.{kernel.algo}"] = _on(kernel.backend, run)
    if torch and definition.peer:
        peer, space = _import_torch(), _Torch()
        candidates["torch"] = _candidate(
            lambda *inputs: definition.call(space, "auto", *inputs),
            lambda: [peer.from_numpy(a).requires_grad_(train) for a in arrays],
            peer.from_numpy(grad_y),
            train,
        )
    moved = sum(a.nbytes for a in arrays) + grad_y.nbytes
    scale = batch if any(-1 in shape for shape in layer.shapes) else 1
    flops = layer.flops * scale or definition.work * arrays[0].size
    factor = 3 if train else 1  # backward reads the gradient and writes one of the same size
    error = _plain_error(definition, arrays, grad_y, train)
    return Job(candidates, error, factor * flops, factor * moved)


def _on(backend: str, run: Callable[[], Any]) -> Callable[[], Any]:
    def run_there() -> Any:
        with lamina.backend(backend):
            return run()

    return run_there


def make_job(
    layer: ConvLayer | PlainLayer, pass_: str, batch: int, ref: bool = False, torch: bool = False
) -> Job:
    """The job of any layer."""
    build: Any = conv_job if isinstance(layer, ConvLayer) else plain_job
    return build(layer, pass_, batch, ref, torch)
