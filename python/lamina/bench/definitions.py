"""Every operation of the library in a few lines of NumPy, for `lamina check` and `lamina bench`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import ops

Array = np.ndarray
_erf = np.vectorize(math.erf)


class Definition(NamedTuple):
    """`call(F, algo, *inputs)` is the function of a module F, `formula(*inputs)` its definition."""

    call: Callable[..., Any]
    formula: Callable[..., Array]
    shapes: tuple[tuple[int, ...], ...]

    def inputs(self) -> list[Array]:
        rng = np.random.default_rng(0)
        return [rng.normal(size=shape) for shape in self.shapes]


def _windows(x: Array, kernel: int, pad: int) -> Array:
    """[N, C, P, Q, kernel, kernel] at stride 1."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))


def _conv(x: Array, weight: Array, bias: Array) -> Array:
    return np.einsum("ncpqrs,kcrs->nkpq", _windows(x, 3, 1), weight) + bias[:, None, None]


def _depthwise(x: Array, weight: Array, bias: Array) -> Array:
    return np.einsum("ncpqrs,crs->ncpq", _windows(x, 3, 1), weight[:, 0]) + bias[:, None, None]


def _im2col(x: Array) -> Array:
    n, c = x.shape[:2]
    return _windows(x, 3, 1).transpose(0, 1, 4, 5, 2, 3).reshape(n, c * 9, -1)


def _blocks(x: Array) -> Array:
    """x cut into 2 x 2 windows: [..., H / 2, W / 2, 4]."""
    *lead, h, w = x.shape
    cut = x.reshape(*lead, h // 2, 2, w // 2, 2).swapaxes(-3, -2)
    return cut.reshape(*lead, h // 2, w // 2, 4)


_SPREAD = np.arange(20).reshape(1, 1, 4, 5) // 5 * 20 + np.arange(20).reshape(1, 1, 4, 5) % 5 * 2


def _unpool(x: Array) -> Array:
    y = np.zeros((*x.shape[:2], 8, 10))
    y[..., ::2, ::2] = x
    return y


_BOX = np.array([[1.0, 1, 2, 4, 5], [0, 0, 0, 2, 1]])


def _roi_pool(x: Array) -> Array:
    """Rows 2 to 5, columns 1 to 4 of image 1; rows 0 and 1, columns 0 to 2 of image 0."""
    first = _blocks(x[1:, :, 2:6, 1:5]).max(-1)
    second = np.stack([x[:1, :, :2, i : i + 2].max(-1) for i in (0, 1)], -1)
    return np.concatenate([first, second])


def _roi_align(x: Array) -> Array:
    """One sample in the middle of each half of the boxes 3 x 3 and 2 x 1 (length 1 at least)."""

    def line(v: Array, axis: int, at: list[float]) -> Array:
        low = [int(a) for a in at]
        part = np.array(at) - low
        taken = [np.take(v, [i + j for i in low], axis) for j in (0, 1)]
        shape = [1] * v.ndim
        shape[axis] = len(at)
        return taken[0] * (1 - part).reshape(shape) + taken[1] * part.reshape(shape)

    first = line(line(x[1:], 2, [2.75, 4.25]), 3, [1.75, 3.25])
    second = line(line(x[:1], 2, [0.25, 0.75]), 3, [0.5, 1.5])
    return np.concatenate([first, second])


def _softmax(x: Array) -> Array:
    e = np.exp(x)
    return e / e.sum(1, keepdims=True)


_TARGET = np.array([2, 0, 1, 1])


def _cross_entropy(x: Array) -> Array:
    return -np.log(_softmax(x))[np.arange(4), _TARGET]


def _standard(x: Array, axes: tuple[int, ...]) -> Array:
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5)


def _affine(x: Array, weight: Array, bias: Array) -> Array:
    return x * weight[:, None, None] + bias[:, None, None]


def _group_norm(x: Array, weight: Array, bias: Array) -> Array:
    groups = x.reshape(x.shape[0], 2, -1)
    return _affine(_standard(groups, (2,)).reshape(x.shape), weight, bias)


def _local_response_norm(x: Array) -> Array:
    padded = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = sum(padded[:, i : i + x.shape[1]] for i in range(3))
    return x * (1 + 0.5 * total / 3) ** -0.75


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _lstm_cell(x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array) -> Array:
    i, f, g, o = np.split(x @ w_ih.T + h @ w_hh.T, 4, 1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c) + 2 * c


def _call_lstm_cell(F: Any, algo: str, x: Any, h: Any, c: Any, w_ih: Any, w_hh: Any) -> Any:
    new_h, new_c = F.lstm_cell(x, (h, c), w_ih, w_hh)
    return new_h + 2 * new_c


def _call_dropout(F: Any, algo: str, x: Any) -> Any:
    """Twice x or nothing: y (y - 2 x) is 0."""
    y = F.dropout(x, 0.5)
    return y * (y - 2 * x)


def _gru_cell(x: Array, h: Array, w_ih: Array, w_hh: Array) -> Array:
    (a_r, a_z, a_n), (b_r, b_z, b_n) = (np.split(v @ w.T, 3, 1) for v, w in ((x, w_ih), (h, w_hh)))
    z = _sigmoid(a_z + b_z)
    return (1 - z) * np.tanh(a_n + _sigmoid(a_r + b_r) * b_n) + z * h


def _resample(x: Array) -> Array:
    """Twice the size, bilinear: 3/4 of the nearest and 1/4 of the next element along each axis."""
    for axis in (2, 3):
        v = np.moveaxis(x, axis, -1)
        before = np.concatenate([v[..., :1], v[..., :-1]], -1)
        after = np.concatenate([v[..., 1:], v[..., -1:]], -1)
        pair = np.stack([0.75 * v + 0.25 * before, 0.75 * v + 0.25 * after], -1)
        x = np.moveaxis(pair.reshape(*v.shape[:-1], -1), -1, axis)
    return x


def _channel_shuffle(x: Array) -> Array:
    """Channel 3 k + g from g C / 3 + k."""
    n, c, h, w = x.shape
    return x.reshape(n, 3, c // 3, h, w).swapaxes(1, 2).reshape(x.shape)


_BOXES = np.array([[0.0, 0, 4, 4], [1, 1, 5, 5], [10, 10, 12, 12], [0, 0, 4, 5]])
_IMAGE = (2, 6, 8, 10)

DEFINITIONS: dict[str, Definition] = {
    "gemm": Definition(
        lambda F, algo, a, b: F.linear(a, b), lambda a, b: a @ b.T, ((37, 130), (53, 130))
    ),
    "conv": Definition(
        lambda F, algo, x, weight, bias: F.conv2d(x, weight, bias, padding=1, algo=algo),
        _conv,
        ((2, 6, 15, 13), (9, 6, 3, 3), (9,)),
    ),
    "depthwise": Definition(
        lambda F, algo, x, weight, bias: F.conv2d(x, weight, bias, padding=1, groups=6, algo=algo),
        _depthwise,
        ((2, 6, 15, 13), (6, 1, 3, 3), (6,)),
    ),
    "im2col": Definition(lambda F, algo, x: F.unfold(x, 3, padding=1), _im2col, (_IMAGE,)),
    "max_pool": Definition(
        lambda F, algo, x: F.max_pool2d(x, 2), lambda x: _blocks(x).max(-1), (_IMAGE,)
    ),
    "avg_pool": Definition(
        lambda F, algo, x: F.avg_pool2d(x, 2), lambda x: _blocks(x).mean(-1), (_IMAGE,)
    ),
    "max_unpool": Definition(
        lambda F, algo, x: F.max_unpool2d(x, np.broadcast_to(_SPREAD, x.shape), 2),
        _unpool,
        ((2, 3, 4, 5),),
    ),
    "roi_pool": Definition(
        lambda F, algo, x: ops.roi_pool(x, _BOX.astype(x.dtype), 2), _roi_pool, (_IMAGE,)
    ),
    "roi_align": Definition(
        lambda F, algo, x: ops.roi_align(x, _BOX.astype(x.dtype), 2, sampling_ratio=1),
        _roi_align,
        (_IMAGE,),
    ),
    "nms": Definition(
        lambda F, algo, scores: ops.nms(_BOXES.astype(scores.dtype), np.sort(scores)[::-1], 0.3),
        lambda scores: np.array([0, 2]),
        ((4,),),
    ),
    "resample": Definition(
        lambda F, algo, x: F.interpolate(x, scale_factor=2, mode="bilinear"), _resample, (_IMAGE,)
    ),
    "permute": Definition(
        lambda F, algo, x: F.channel_shuffle(x, 3),
        _channel_shuffle,
        (_IMAGE,),
    ),
    "activation": Definition(
        lambda F, algo, x: F.gelu(x), lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))), (_IMAGE,)
    ),
    "prelu": Definition(
        lambda F, algo, x, a: F.prelu(x, a),
        lambda x, a: np.where(x > 0, x, a[:, None, None] * x),
        (_IMAGE, (6,)),
    ),
    "softmax": Definition(lambda F, algo, x: F.softmax(x, 1), _softmax, (_IMAGE,)),
    "cross_entropy": Definition(
        lambda F, algo, x: F.cross_entropy(x, _TARGET, reduction="none"), _cross_entropy, ((4, 7),)
    ),
    "dropout": Definition(  # twice x or nothing: y (y - 2 x) is 0
        lambda F, algo, x: (lambda y: y * (y - 2 * x))(F.dropout(x, 0.5)),
        lambda x: 0 * x,
        (_IMAGE,),
    ),
    "batch_norm": Definition(
        lambda F, algo, x, weight, bias: F.batch_norm(x, None, None, weight, bias, True),
        lambda x, weight, bias: _affine(_standard(x, (0, 2, 3)), weight, bias),
        (_IMAGE, (6,), (6,)),
    ),
    "group_norm": Definition(
        lambda F, algo, x, weight, bias: F.group_norm(x, 2, weight, bias),
        _group_norm,
        (_IMAGE, (6,), (6,)),
    ),
    "local_response_norm": Definition(
        lambda F, algo, x: F.local_response_norm(x, 3, 0.5), _local_response_norm, (_IMAGE,)
    ),
    "lstm_cell": Definition(
        _call_lstm_cell, _lstm_cell, ((3, 5), (3, 7), (3, 7), (28, 5), (28, 7))
    ),
    "gru_cell": Definition(
        lambda F, algo, *inputs: F.gru_cell(*inputs), _gru_cell, ((3, 5), (3, 7), (21, 5), (21, 7))
    ),
}
