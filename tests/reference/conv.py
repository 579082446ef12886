"""Convolution, its gradients, transposed convolution, linear, unfold and fold.

x [N, C, *in], weight [K, C/groups, *kernel], y [N, K, *out]; one, two or three spatial axes.
    y[n, k, p] = bias[k] + sum_{c, r} x[n, g(k) C/groups + c, p stride + r dilation - low]
                 * weight[k, c, r]
Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning"; the 'same'
rule is TensorFlow's: out = ceil(in / stride), an odd pad goes to the high side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, Ints, grid, ntuple, real, tap

Padding = int | str | Sequence[int] | Sequence[tuple[int, int]]


def resolve_padding(
    padding: Padding,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """The (low, high) pad of every spatial axis."""
    if padding == "valid":
        padding = 0
    if padding == "same":
        pads = []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            pads.append((total // 2, total - total // 2))
        return tuple(pads)
    if not isinstance(padding, int) and np.ndim(padding) == 2:
        return tuple((int(low), int(high)) for low, high in padding)
    return tuple((p, p) for p in ntuple(padding, len(size)))


def conv_output_size(
    size: Ints, kernel_size: Ints, stride: Ints = 1, padding: Padding = 0, dilation: Ints = 1
) -> tuple[int, ...]:
    """floor((in + low + high - dilation (kernel - 1) - 1) / stride) + 1, per axis."""
    size = ntuple(size, 1)
    n = len(size)
    kernel, stride, dilation = (ntuple(v, n) for v in (kernel_size, stride, dilation))
    pads = resolve_padding(padding, size, kernel, stride, dilation)
    return tuple(
        (size[a] + sum(pads[a]) - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1
        for a in range(n)
    )


def _geometry(x_size, kernel, stride, padding, dilation):
    n = len(kernel)
    stride, dilation = ntuple(stride, n), ntuple(dilation, n)
    pads = resolve_padding(padding, x_size, kernel, stride, dilation)
    out = conv_output_size(x_size, kernel, stride, pads, dilation)
    return stride, dilation, pads, out


def _taps(kernel, stride, dilation, out):
    """(kernel index, slices of the padded input which that kernel element meets)."""
    for r in grid(kernel):
        offset = [i * d for i, d in zip(r, dilation, strict=True)]
        yield (..., *r), (..., *tap(offset, out, stride))


def _crop(x: Array, pads: Sequence[tuple[int, int]]) -> Array:
    return x[
        (..., *(slice(low, x.shape[a - len(pads)] - high) for a, (low, high) in enumerate(pads)))
    ]


def _split(x: Array, groups: int, axis: int) -> Array:
    """Split the channel axis into [groups, channels / groups]."""
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


def conv(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Array:
    """Convolution over weight.ndim - 2 spatial axes; x may lack the batch axis."""
    x, weight = real(x), real(weight)
    if x.ndim == weight.ndim - 1:
        return conv(x[None], weight, bias, stride, padding, dilation, groups)[0]
    kernel = weight.shape[2:]
    stride, dilation, pads, out = _geometry(x.shape[2:], kernel, stride, padding, dilation)
    padded = _split(np.pad(x, [(0, 0), (0, 0), *pads]), groups, 1)
    w = _split(weight, groups, 0)
    y = np.zeros((len(x), groups, w.shape[1], *out), np.result_type(x, weight))
    for r, window in _taps(kernel, stride, dilation, out):
        y += np.einsum("ngc...,gkc->ngk...", padded[window], w[r])
    y = y.reshape(len(x), len(weight), *out)
    return y if bias is None else y + real(bias).reshape(-1, *(1 for _ in out))


def conv_dgrad(
    grad_y: ArrayLike,
    weight: ArrayLike,
    x_shape: Sequence[int],
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Array:
    """Gradient for x: every output adds weight * grad_y to the inputs it has read."""
    grad_y, weight = real(grad_y), real(weight)
    kernel, size = weight.shape[2:], tuple(x_shape[2:])
    stride, dilation, pads, out = _geometry(size, kernel, stride, padding, dilation)
    g, w = _split(grad_y, groups, 1), _split(weight, groups, 0)
    padded_size = [n + low + high for n, (low, high) in zip(size, pads, strict=True)]
    padded = np.zeros((x_shape[0], groups, w.shape[2], *padded_size))
    for r, window in _taps(kernel, stride, dilation, out):
        padded[window] += np.einsum("ngk...,gkc->ngc...", g, w[r])
    return _crop(padded, pads).reshape(x_shape)


def conv_wgrad(
    x: ArrayLike,
    grad_y: ArrayLike,
    weight_shape: Sequence[int],
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Array:
    """Gradient for weight: grad_y times the input that each kernel element met, summed."""
    x, grad_y = real(x), real(grad_y)
    kernel = tuple(weight_shape[2:])
    stride, dilation, pads, out = _geometry(x.shape[2:], kernel, stride, padding, dilation)
    padded = _split(np.pad(x, [(0, 0), (0, 0), *pads]), groups, 1)
    g = grad_y.reshape(len(x), groups, weight_shape[0] // groups, math.prod(out))
    grad = np.zeros((groups, weight_shape[0] // groups, *weight_shape[1:]))
    for r, window in _taps(kernel, stride, dilation, out):
        met = padded[window].reshape(*padded.shape[:3], g.shape[3])
        grad[r] = np.einsum("ngkp,ngcp->gkc", g, met)
    return grad.reshape(weight_shape)


def conv_bgrad(grad_y: ArrayLike) -> Array:
    """Gradient for bias: grad_y summed over everything but the channels."""
    grad_y = real(grad_y)
    return grad_y.sum((0, *range(2, grad_y.ndim)))


def _fixed_axes(n: int):
    def fixed(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        assert np.ndim(weight) == n + 2, f"conv{n}d: weight has {np.ndim(weight)} axes"
        return conv(x, weight, bias, stride, padding, dilation, groups)

    fixed.__name__ = f"conv{n}d"
    fixed.__doc__ = f"conv over {n} spatial axes, signature of torch.nn.functional.conv{n}d."
    return fixed


conv1d, conv2d, conv3d = (_fixed_axes(n) for n in (1, 2, 3))


def conv_transpose(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Array:
    """Scatter: y[n, k, i stride + r dilation - padding] += x[n, c, i] weight[c, k, r].

    weight [C, K/groups, *kernel];
    out = (in - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1.
    """
    x, weight = real(x), real(weight)
    if x.ndim == weight.ndim - 1:
        x = x[None]
        return conv_transpose(x, weight, bias, stride, padding, output_padding, groups, dilation)[0]
    n, size, kernel = weight.ndim - 2, x.shape[2:], weight.shape[2:]
    stride, padding, extra, dilation = (
        ntuple(v, n) for v in (stride, padding, output_padding, dilation)
    )
    full = [
        (size[a] - 1) * stride[a] + dilation[a] * (kernel[a] - 1) + 1 + extra[a] for a in range(n)
    ]
    x, w = _split(x, groups, 1), _split(weight, groups, 0)
    y = np.zeros((len(x), groups, weight.shape[1], *full), np.result_type(x, weight))
    for r, window in _taps(kernel, stride, dilation, size):
        y[window] += np.einsum("ngc...,gck->ngk...", x, w[r])
    y = _crop(y, [(p, p) for p in padding])
    y = y.reshape(len(x), groups * weight.shape[1], *y.shape[3:])
    return y if bias is None else y + real(bias).reshape(-1, *(1 for _ in full))


conv_transpose1d = conv_transpose2d = conv_transpose3d = conv_transpose


def conv_transpose_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> tuple[Array, Array, Array]:
    """Gradients for x, weight and bias: every input gathers what it has scattered."""
    grad_y, x, weight = real(grad_y), real(x), real(weight)
    n, size, kernel = weight.ndim - 2, x.shape[2:], weight.shape[2:]
    stride, padding, dilation = (ntuple(v, n) for v in (stride, padding, dilation))
    # output_padding only lengthens y at the high end, which grad_y already shows.
    g = np.pad(grad_y, [(0, 0), (0, 0), *((p, p) for p in padding)])
    g, xs, w = _split(g, groups, 1), _split(x, groups, 1), _split(weight, groups, 0)
    grad_x, grad_w = np.zeros_like(xs), np.zeros_like(w)
    for r, window in _taps(kernel, stride, dilation, size):
        met = g[window]
        grad_x += np.einsum("ngk...,gck->ngc...", met, w[r])
        p = math.prod(size)
        flat = met.reshape(*met.shape[:3], p), xs.reshape(*xs.shape[:3], p)
        grad_w[r] = np.einsum("ngkp,ngcp->gck", *flat)
    return grad_x.reshape(x.shape), grad_w.reshape(weight.shape), conv_bgrad(grad_y)


def linear(x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None) -> Array:
    """y = x weight^T + bias; x [..., in], weight [out, in] (or [in], giving [...])."""
    y = real(x) @ real(weight).T
    return y if bias is None else y + real(bias)


def linear_backward(
    grad_y: ArrayLike, x: ArrayLike, weight: ArrayLike
) -> tuple[Array, Array, Array]:
    """Gradients for x, weight and bias."""
    grad_y, x, weight = real(grad_y), real(x), real(weight)
    rows = grad_y.reshape(-1, grad_y.shape[-1])
    grad_w = rows.T @ x.reshape(-1, x.shape[-1])
    return grad_y @ weight, grad_w, rows.sum(0)


def unfold(
    x: ArrayLike, kernel_size: Ints, dilation: Ints = 1, padding: Ints = 0, stride: Ints = 1
) -> Array:
    """im2col: x [N, C, H, W] to [N, C R S, P Q], kernel offsets varying within a channel."""
    x = real(x)
    if x.ndim == 3:
        return unfold(x[None], kernel_size, dilation, padding, stride)[0]
    kernel = ntuple(kernel_size, 2)
    stride, dilation, pads, out = _geometry(x.shape[2:], kernel, stride, padding, dilation)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    columns = [padded[window] for _, window in _taps(kernel, stride, dilation, out)]
    n, c = x.shape[:2]
    return np.stack(columns, 2).reshape(n, c * kernel[0] * kernel[1], out[0] * out[1])


def fold(
    x: ArrayLike,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> Array:
    """col2im, the adjoint of unfold: overlapping columns add up; x [N, C R S, P Q]."""
    x = real(x)
    if x.ndim == 2:
        return fold(x[None], output_size, kernel_size, dilation, padding, stride)[0]
    size, kernel = ntuple(output_size, 2), ntuple(kernel_size, 2)
    stride, dilation, pads, out = _geometry(size, kernel, stride, padding, dilation)
    taps = kernel[0] * kernel[1]
    columns = x.reshape(len(x), x.shape[1] // taps, taps, *out)
    padded_size = [s + low + high for s, (low, high) in zip(size, pads, strict=True)]
    padded = np.zeros((len(x), columns.shape[1], *padded_size))
    for i, (_, window) in enumerate(_taps(kernel, stride, dilation, out)):
        padded[window] += columns[:, :, i]
    return _crop(padded, pads)
