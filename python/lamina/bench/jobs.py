"""What a benchmark of one layer runs: kernels, peer, and the NumPy result they must reproduce."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import lamina

from .. import _C
from ..functional.conv import Geometry, conv_shape
from .definitions import DEFINITIONS, LAMINA, Definition, Namespace
from .layers import ConvLayer, PlainLayer
from .timing import Within

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
    """Root mean square error over the expected values' standard deviation (of one, its size)."""
    if y.shape != expected.shape:
        return float("inf")
    spread = expected.std() if expected.size > 1 else np.abs(expected).max()
    return float(np.sqrt(np.mean((y - expected) ** 2)) / max(spread, 1e-30))


def passes_of(layer: ConvLayer | PlainLayer) -> tuple[str, ...]:
    """The passes that a layer of this kind has."""
    return CONV_PASSES if isinstance(layer, ConvLayer) else PLAIN_PASSES


def _import_torch() -> Any:
    import torch

    torch.set_num_threads(lamina.get_num_threads())
    return torch


# Convolution


def geometry_of(op: str, layer: ConvLayer) -> Geometry:
    """How a layer's filter moves, for the kernels' shape."""
    pads = tuple((pad, pad) for pad in layer.each(layer.padding))
    stride, dilation = layer.each(layer.stride), layer.each(layer.dilation)
    return Geometry(op, stride, pads, dilation, layer.groups, "auto", -1)


def conv_expected(
    pass_: str, layer: ConvLayer, x: np.ndarray, weight: np.ndarray, grad_y: np.ndarray
) -> np.ndarray:
    """The pass in float64, tap by tap of the filter; of the operands, one gives the shape only."""
    n, g = len(x), layer.groups
    pads = [(pad, pad) for pad in layer.each(layer.padding)]
    if pass_ == "dgrad":
        sizes = (size + sum(pad) for size, pad in zip(x.shape[2:], pads, strict=True))
        padded = np.zeros((*x.shape[:2], *sizes))
    else:
        padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *pads])
    grouped = padded.reshape(n, g, -1, *padded.shape[2:])
    filters = weight.astype(np.float64).reshape(g, len(weight) // g, *weight.shape[1:])
    y = grad_y.astype(np.float64).reshape(n, g, len(weight) // g, -1)
    if pass_ == "fprop":
        y = np.zeros_like(y)
    for tap in np.ndindex(*weight.shape[2:]):
        window = grouped[_last(_reached(layer, tap, grad_y.shape[2:]))]
        seen = window.reshape(*window.shape[:3], -1)
        if pass_ == "fprop":
            y += filters[_last(tap)] @ seen
        elif pass_ == "dgrad":
            window += (filters[_last(tap)].swapaxes(1, 2) @ y).reshape(window.shape)
        else:
            filters[_last(tap)] = (y @ seen.swapaxes(2, 3)).sum(0)
    if pass_ == "fprop":
        return y.reshape(grad_y.shape)
    if pass_ == "wgrad":
        return filters.reshape(weight.shape)
    inner = tuple(slice(low, low + size) for (low, _), size in zip(pads, x.shape[2:], strict=True))
    return padded[_last(inner)]


def _last(index: Sequence[Any]) -> Any:
    """An index of the last axes."""
    return (Ellipsis, *index)


def _reached(layer: ConvLayer, tap: Any, out: tuple[int, ...]) -> tuple[slice, ...]:
    """What one tap of the filter reads of the padded input, per axis."""
    by_axis = zip(tap, out, layer.each(layer.stride), layer.each(layer.dilation), strict=True)
    return tuple(slice(t * d, t * d + (o - 1) * s + 1, s) for t, o, s, d in by_axis)


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
    options = layer.stride, layer.padding, layer.dilation, layer.groups

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
    shape = conv_shape(geometry_of("bench", layer), x.shape, weight.shape)
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
    expected = conv_expected(pass_, layer, x, weight, grad_y)
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

    def error(result: tuple[Any, Sequence[np.ndarray]]) -> float:
        y, gradients = result
        found = relative_error(np.asarray(y), expected)
        if not train:
            return found
        ours = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        norm = sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients) ** 0.5
        return max(found, abs(ours - slope) / max(norm, 1e-30))

    return error


def _candidate(
    call: Callable[..., Any], make: Callable[..., Any], seed: Any, train: bool
) -> Callable[[], Any]:
    """Runs forward, and backward from `seed` if asked; returns (y, gradients).

    Forward alone is the call and nothing else: small ones take less than making an operand.
    """
    if not train:
        given = make()
        return lambda: (call(*given), ())

    def run() -> Any:
        inputs = make()
        y = call(*inputs)
        y.backward(seed)
        return y.detach(), [x.grad.numpy() for x in inputs]

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
    op = definition.cpu_op or definition.op or layer.definition
    for kernel in lamina.kernels(op, "fprop"):
        if kernel.backend not in (("ref", "cpu") if ref else ("cpu",)):  # what this CPU is timed on
            continue
        run = _candidate(
            lambda *inputs: definition.call(LAMINA, "auto", *inputs),
            lambda: [lamina.Tensor(a, requires_grad=train) for a in arrays],
            grad_y,
            train,
        )
        candidates[f"{kernel.backend}.{kernel.algo}"] = _on(kernel.backend, run)
    if torch and definition.peer:
        peer = _import_torch()
        space = Namespace(peer.nn.functional, peer)
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
    return Within(run, lambda: lamina.backend(backend))


def make_job(
    layer: ConvLayer | PlainLayer, pass_: str, batch: int, ref: bool = False, torch: bool = False
) -> Job:
    """The job of any layer."""
    build: Any = conv_job if isinstance(layer, ConvLayer) else plain_job
    return build(layer, pass_, batch, ref, torch)
