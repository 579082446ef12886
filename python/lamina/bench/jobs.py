"""What a benchmark of one layer runs: kernels, peer, and the NumPy result they must reproduce."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import lamina

from .. import _C
from .. import functional as F
from ..functional.conv import Geometry, conv_shape
from .definitions import DEFINITIONS
from .layers import ConvLayer, PlainLayer

PASSES = {"conv": ("fprop", "dgrad", "wgrad")}  # other families: forward, and forward + backward
PLAIN_PASSES = ("fprop", "train")


class Job(NamedTuple):
    """One pass of one layer. Every candidate returns the result as an array."""

    candidates: dict[str, Callable[[], Any]]
    expected: np.ndarray
    flops: float
    moved: int  # bytes of operands and result, each once


class _Torch:
    """torch.nn.functional, and torch itself for the recurrent cells."""

    def __getattr__(self, name: str) -> Any:
        import torch

        return getattr(torch.nn.functional, name, None) or getattr(torch, name)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError:
        raise SystemExit("bench: --vs torch needs PyTorch installed") from None
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
    pass_: str, layer: ConvLayer, x: np.ndarray, weight: np.ndarray, grad_y: np.ndarray
) -> Callable[[], Any]:
    torch = _import_torch()
    tx, tw, ty = (torch.from_numpy(a) for a in (x, weight, grad_y))
    options = layer.stride, layer.padding, 1, layer.groups

    def run() -> Any:
        with torch.no_grad():
            if pass_ == "fprop":
                return torch.nn.functional.conv2d(tx, tw, None, *options).numpy()
            if pass_ == "dgrad":
                return torch.nn.grad.conv2d_input(tx.shape, tw, ty, *options).numpy()
            return torch.nn.grad.conv2d_weight(tx, tw.shape, ty, *options).numpy()

    return run


def conv_job(layer: ConvLayer, pass_: str, batch: int, ref: bool, torch: bool) -> Job:
    """Every algorithm that can run the pass, each writing into an array of its own."""
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
        if kernel.backend == "ref" and not ref:
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
        candidates["torch"] = _torch_conv(pass_, layer, x, weight, grad_y)
    expected = _conv_expected(pass_, layer, x, weight, grad_y)
    return Job(candidates, expected, 2.0 * shape.macs, x.nbytes + weight.nbytes + grad_y.nbytes)


# Everything else


def plain_job(layer: PlainLayer, pass_: str, batch: int, ref: bool, torch: bool) -> Job:
    """The layer's definition on both backends; "train" adds the gradients of a sum of results."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(np.float32) for s in layer.input_shapes(batch)]
    definition = DEFINITIONS[layer.definition]
    expected = definition.formula(*(a.astype(np.float64) for a in arrays))
    train = pass_ == "train"
    candidates: dict[str, Callable[[], Any]] = {}
    for kernel in lamina.kernels(layer.definition, "fprop"):
        if kernel.backend == "ref" and not ref:
            continue

        def run(backend: str = kernel.backend) -> Any:
            with lamina.backend(backend):
                inputs = [lamina.Tensor(a, requires_grad=train) for a in arrays]
                y = definition.call(F, "auto", *inputs)
                if train:
                    y.sum().backward()
            return y.data

        candidates[f"{kernel.backend}.{kernel.algo}"] = run
    if torch:
        peer, space = _import_torch(), _Torch()

        def run_torch() -> Any:
            inputs = [peer.from_numpy(a).requires_grad_(train) for a in arrays]
            y = definition.call(space, "auto", *inputs)
            if train:
                y.sum().backward()
            return y.detach().numpy()

        candidates["torch"] = run_torch
    moved = sum(a.nbytes for a in arrays) + expected.size * 4
    scale = batch if any(-1 in shape for shape in layer.shapes) else 1
    factor = 3 if train else 1  # backward reads the gradient and writes one of the same size
    return Job(candidates, expected, factor * layer.flops * scale, factor * moved)


def make_job(
    family: str, layer: ConvLayer | PlainLayer, pass_: str, batch: int, ref: bool, torch: bool
) -> Job:
    """The job of any layer."""
    if isinstance(layer, ConvLayer):
        return conv_job(layer, pass_, batch, ref, torch)
    return plain_job(layer, pass_, batch, ref, torch)
