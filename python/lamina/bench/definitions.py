"""Every operation of the library in a few lines of NumPy, for `lamina check` and `lamina bench`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .. import functional, operations, ops
from ..functional._update import optimizer_step
from ..random import manual_seed

Array = np.ndarray
_erf = np.vectorize(math.erf)


class Namespace:
    """The functions of several modules: of a name, that of the first module that has it."""

    def __init__(self, *modules: Any) -> None:
        self._modules = modules

    def __getattr__(self, name: str) -> Any:
        for module in self._modules:
            if (found := getattr(module, name, None)) is not None:
                setattr(self, name, found)  # asked for once: calls are timed
                return found
        raise AttributeError(name)


LAMINA = Namespace(functional, operations)


class Definition(NamedTuple):
    """`call(F, algo, *inputs)` is the function of a namespace F, `formula(*inputs)` its definition.

    op: the registry's name of the operation; empty where the table's key is that name.
    cpu_op: the same on the backends ref and cpu, where they have a kernel of their own for it.
    work: operations per element of the first input, where that is a constant: an addition, a
    comparison or an exponential counts as one.
    peer: whether torch, without further packages, computes the same.
    """

    call: Callable[..., Any]
    formula: Callable[..., Array]
    shapes: tuple[tuple[int, ...], ...]
    op: str = ""
    work: float = 0.0
    peer: bool = True
    cpu_op: str = ""

    def inputs(self) -> list[Array]:
        rng = np.random.default_rng(0)
        return [rng.normal(size=shape) for shape in self.shapes]


def _windows(x: Array, kernel: int, pad: int, stride: int = 1, fill: float = 0.0) -> Array:
    """[N, C, P, Q, kernel, kernel]."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))
    return windows[:, :, ::stride, ::stride]


def _max_pool(kernel: int, stride: int, pad: int) -> Definition:
    return Definition(
        lambda F, algo, x: F.max_pool2d(x, kernel, stride, pad),
        lambda x: _windows(x, kernel, pad, stride, -np.inf).max((-2, -1)),
        (_IMAGE,),
        "max_pool",
        (kernel / stride) ** 2,
    )


def _adaptive_avg_pool(x: Array, out: int) -> Array:
    """Bin i of an axis of n elements: floor(i n / out) to ceil((i + 1) n / out)."""
    for axis in (2, 3):
        n = x.shape[axis]
        bins = [range(i * n // out, -(-(i + 1) * n // out)) for i in range(out)]
        x = np.stack([x.take(bin_, axis).mean(axis) for bin_ in bins], axis)
    return x


def _elementwise(call: Callable[..., Any], formula: Callable[[Array], Array]) -> Definition:
    return Definition(call, formula, (_IMAGE,), "activation", 1)


def _conv(x: Array, weight: Array, bias: Array) -> Array:
    return np.einsum("ncpqrs,kcrs->nkpq", _windows(x, 3, 1), weight) + bias[:, None, None]


def _conv_5x5(x: Array, weight: Array, bias: Array) -> Array:
    return np.einsum("ncpqrs,kcrs->nkpq", _windows(x, 5, 2), weight) + bias[:, None, None]


def _conv_1x7(x: Array, weight: Array, bias: Array) -> Array:
    row = _windows(x, 7, 3)[..., 3, :]  # of every window, its middle one
    return np.einsum("ncpqs,kcs->nkpq", row, weight[:, :, 0]) + bias[:, None, None]


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


def _constant(F: Any, array: Array) -> Any:
    """What the functions of F take beside their differentiable inputs: torch wants tensors."""
    return getattr(F, "as_tensor", np.asarray)(array)


@lru_cache(maxsize=1)  # a benchmark does not time the making of its inputs
def _corners(shape: tuple[int, ...]) -> Array:
    """Of each 2 x 2 window, the index of the first element in the plane of windows."""
    h, w = shape[-2:]
    index = 4 * w * np.arange(h)[:, None] + 2 * np.arange(w)
    return np.ascontiguousarray(np.broadcast_to(index, shape))


def _unpool(x: Array) -> Array:
    y = np.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]))
    y[..., ::2, ::2] = x
    return y


def _regions(x: Any) -> Array:
    """64 boxes (image, x1, y1, x2, y2) inside the images x [N, C, H, W], with whole corners."""
    n, _, h, w = x.shape
    rng = np.random.default_rng(2)
    low = rng.integers(0, (w // 2, h // 2), (64, 2))
    high = low + rng.integers(0, (w // 2, h // 2), (64, 2))
    return np.column_stack([np.arange(64) % n, low, high]).astype(x.dtype)


def _roi_pool(x: Array, out: int) -> Array:
    """The maximum of each bin: floor(i h / out) to ceil((i + 1) h / out) of a box's h rows."""

    def bins(low: int, high: int) -> list[slice]:
        n = high - low + 1
        return [slice(low + i * n // out, low - (-(i + 1) * n // out)) for i in range(out)]

    return np.stack(
        [
            np.array([[x[i, :, p, q].max((1, 2)) for q in bins(x1, x2)] for p in bins(y1, y2)])
            for i, x1, y1, x2, y2 in _regions(x).astype(int)
        ]
    ).transpose(0, 3, 1, 2)


def _samples(size: int, low: float, high: float, out: int, ratio: int) -> Array:
    """[out, size]: the mean of `ratio` linear interpolations in each bin of low .. high."""
    at = low + max(high - low, 1.0) * (np.arange(out * ratio) + 0.5) / (out * ratio)
    distance = np.abs(at[:, None] - np.arange(size))
    return np.maximum(1 - distance, 0).reshape(out, ratio, size).mean(1)


def _roi_align(x: Array, out: int, ratio: int) -> Array:
    h, w = x.shape[2:]
    return np.stack(
        [
            _samples(h, y1, y2, out, ratio) @ x[int(i)] @ _samples(w, x1, x2, out, ratio).T
            for i, x1, y1, x2, y2 in _regions(x)
        ]
    )


def _softmax(x: Array) -> Array:
    e = np.exp(x)
    return e / e.sum(1, keepdims=True)


def _targets(x: Any) -> Array:
    """A class for each row of x [N, C]."""
    n, c = x.shape
    return np.arange(n) * 7 % c


def _call_cross_entropy(F: Any, algo: str, x: Any) -> Any:
    return F.cross_entropy(x, _constant(F, _targets(x)), reduction="none")


def _cross_entropy(x: Array) -> Array:
    return -np.log(_softmax(x))[np.arange(len(x)), _targets(x)]


def _standard(x: Array, axes: tuple[int, ...]) -> Array:
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5)


def _affine(x: Array, weight: Array, bias: Array) -> Array:
    return x * weight[:, None, None] + bias[:, None, None]


def _group_norm(groups: int) -> Definition:
    def formula(x: Array, weight: Array, bias: Array) -> Array:
        rows = x.reshape(x.shape[0], groups, -1)
        return _affine(_standard(rows, (2,)).reshape(x.shape), weight, bias)

    return Definition(
        lambda F, algo, x, weight, bias: F.group_norm(x, groups, weight, bias),
        formula,
        ((2, 2 * groups, 5, 6), (2 * groups,), (2 * groups,)),
        "group_norm",
        6,
    )


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


def _philox(blocks: int) -> Array:
    """[blocks, 4] random 32-bit words: Philox 4x32-10 (Salmon et al. 2011), key 0, counted from 0.

    A round takes (c0, c1, c2, c3) to (hi(m1 c2) ^ c1 ^ k0, lo(m1 c2), hi(m0 c0) ^ c3 ^ k1,
    lo(m0 c0)); round i has the i-th multiples of the Weyl constants as its keys.
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = [np.arange(blocks, dtype=np.uint64), *np.zeros((3, blocks), np.uint64)]
    for i in range(10):
        k0, k1 = (np.uint64(i * weyl & 0xFFFFFFFF) for weyl in (0x9E3779B9, 0xBB67AE85))
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> half) ^ c[1] ^ k0, p1 & low, (p0 >> half) ^ c[3] ^ k1, p0 & low]
    return np.stack(c, 1)


def _dropout(x: Array) -> Array:
    """Element i is kept, and doubled, where word i is in the upper half of its range."""
    words = _philox(-(-x.size // 4)).ravel()[: x.size].reshape(x.shape)
    return np.where(words >= 2**31, 2 * x, 0)


def _call_dropout(F: Any, algo: str, x: Any) -> Any:
    manual_seed(0)
    return F.dropout(x, 0.5)


def _call_adam(F: Any, algo: str, p: Any, g: Any, m: Any, root_v: Any) -> Any:
    p, m, v = p.copy(), m.copy(), root_v * root_v
    optimizer_step("adam", p, g, [m, v], (0.1, 0.99, 0.01, 0.5, 1e-3, 0.1))
    return p


def _adam(p: Array, g: Array, m: Array, root_v: Array) -> Array:
    m, v = 0.9 * m + 0.1 * g, 0.99 * root_v**2 + 0.01 * g**2
    return p - 0.1 * m / (np.sqrt(v) / 0.5 + 1e-3)


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


def _reduction(
    name: str, op: str, formula: Callable[..., Any], *arguments: Any, work: float = 1
) -> dict[str, Definition]:
    """`name` over all axes, the last, the first, and those of a batch's channels."""

    def over(dim: Any) -> Definition:
        given = (*arguments, dim) if dim is not None or arguments else ()

        def call(F: Any, algo: str, x: Any) -> Any:
            y = getattr(F, name)(x, *given)
            return y[0] if name == "max" else y

        shape = (3, 5, 7, 9)[: 4 if isinstance(dim, tuple) else 2]
        return Definition(call, lambda x: np.asarray(formula(x, dim)), (shape,), op, work)

    axes = {"all": None, "last": -1, "first": 0, "channels": (0, 2, 3)}
    if name == "max":
        axes = {"last": -1, "first": 0}
    return {f"{name}.{place}": over(dim) for place, dim in axes.items()}


def _call_ctc(F: Any, algo: str, x: Any) -> Any:
    return F.ctc_loss(x, np.array([[1, 1]]), [4], [2], reduction="none")


def _ctc(x: Array) -> Array:
    """Of label 1 twice in four steps: a blank must lie between."""
    paths = [(1, 0, 1, 1), (1, 1, 0, 1), (1, 0, 0, 1), (0, 1, 0, 1), (1, 0, 1, 0)]
    steps = np.arange(4)
    return -np.log([sum(np.exp(x[steps, 0, list(p)].sum()) for p in paths)])


def _pointwise_loss(name: str, formula: Callable[..., Any]) -> Definition:
    def call(F: Any, algo: str, x: Any, t: Any) -> Any:
        return getattr(F, name)(x, t)

    return Definition(call, lambda x, t: formula(x, t).mean(), ((5, 37), (5, 37)), "loss", 3)


DEFINITIONS: dict[str, Definition] = {
    "gemm": Definition(
        lambda F, algo, a, b: F.linear(a, b), lambda a, b: a @ b.T, ((37, 130), (53, 130))
    ),
    "conv": Definition(
        lambda F, algo, x, weight, bias: F.conv2d(x, weight, bias, padding=1, algo=algo),
        _conv,
        ((2, 6, 15, 13), (9, 6, 3, 3), (9,)),
    ),
    "conv_5x5": Definition(
        lambda F, algo, x, weight, bias: F.conv2d(x, weight, bias, padding=2, algo=algo),
        _conv_5x5,
        ((2, 6, 21, 19), (9, 6, 5, 5), (9,)),
        "conv",
    ),
    "conv_1x7": Definition(
        lambda F, algo, x, weight, bias: F.conv2d(x, weight, bias, padding=(0, 3), algo=algo),
        _conv_1x7,
        ((2, 6, 9, 21), (9, 6, 1, 7), (9,)),
        "conv",
    ),
    "depthwise": Definition(
        lambda F, algo, x, weight, bias: F.conv2d(x, weight, bias, padding=1, groups=6, algo=algo),
        _depthwise,
        ((2, 6, 15, 13), (6, 1, 3, 3), (6,)),
        "conv",
    ),
    "im2col": Definition(lambda F, algo, x: F.unfold(x, 3, padding=1), _im2col, (_IMAGE,)),
    "max_pool": _max_pool(2, 2, 0),
    "max_pool_3x3": _max_pool(3, 1, 1),
    "max_pool_3x3s2": _max_pool(3, 2, 1),
    "avg_pool": Definition(
        lambda F, algo, x: F.avg_pool2d(x, 2), lambda x: _blocks(x).mean(-1), (_IMAGE,), work=1
    ),
    "avg_pool_3x3": Definition(
        lambda F, algo, x: F.avg_pool2d(x, 3, 1, 1),
        lambda x: _windows(x, 3, 1).mean((-2, -1)),
        (_IMAGE,),
        "avg_pool",
        9,
    ),
    "global_avg_pool": Definition(
        lambda F, algo, x: F.adaptive_avg_pool2d(x, 1),
        lambda x: x.mean((2, 3), keepdims=True),
        (_IMAGE,),
        "avg_pool",
        1,
    ),
    "adaptive_avg_pool": Definition(
        lambda F, algo, x: F.adaptive_avg_pool2d(x, 6),
        lambda x: _adaptive_avg_pool(x, 6),
        (_IMAGE,),
        "avg_pool",
        1,
    ),
    "max_unpool": Definition(
        lambda F, algo, x: F.max_unpool2d(x, _constant(F, _corners(tuple(x.shape))), 2),
        _unpool,
        ((2, 3, 4, 5),),
    ),
    "roi_pool": Definition(
        lambda F, algo, x: ops.roi_pool(x, _regions(x), 7),
        lambda x: _roi_pool(x, 7),
        (_IMAGE,),
        peer=False,
    ),
    "roi_align": Definition(
        lambda F, algo, x: ops.roi_align(x, _regions(x), 7, sampling_ratio=2),
        lambda x: _roi_align(x, 7, 2),
        (_IMAGE,),
        peer=False,
    ),
    "nms": Definition(
        lambda F, algo, scores: ops.nms(_BOXES.astype(scores.dtype), np.sort(scores)[::-1], 0.3),
        lambda scores: np.array([0, 2]),
        ((4,),),
    ),
    "resample": Definition(
        lambda F, algo, x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        _resample,
        (_IMAGE,),
        work=18,
        cpu_op="resample_planes",
    ),
    "nearest": Definition(
        lambda F, algo, x: F.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x: x.repeat(2, 2).repeat(2, 3),
        (_IMAGE,),
        "resample",
        cpu_op="resample_planes",
    ),
    "nearest_1d": Definition(
        lambda F, algo, x: F.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x: x.repeat(2, 2),
        ((2, 6, 14),),
        "resample",
    ),
    "permute": Definition(
        lambda F, algo, x: F.channel_shuffle(x, 3),
        _channel_shuffle,
        (_IMAGE,),
    ),
    "gelu": _elementwise(
        lambda F, algo, x: F.gelu(x), lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2)))
    ),
    "relu": _elementwise(lambda F, algo, x: F.relu(x), lambda x: np.maximum(x, 0)),
    "relu6": _elementwise(lambda F, algo, x: F.relu6(x), lambda x: np.clip(x, 0, 6)),
    "leaky_relu": _elementwise(
        lambda F, algo, x: F.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, 0.2 * x)
    ),
    "sigmoid": _elementwise(lambda F, algo, x: F.sigmoid(x), _sigmoid),
    "tanh": _elementwise(lambda F, algo, x: F.tanh(x), np.tanh),
    "silu": _elementwise(lambda F, algo, x: F.silu(x), lambda x: x * _sigmoid(x)),
    "prelu": Definition(
        lambda F, algo, x, a: F.prelu(x, a),
        lambda x, a: np.where(x > 0, x, a[:, None, None] * x),
        (_IMAGE, (6,)),
        work=2,
    ),
    "softmax": Definition(lambda F, algo, x: F.softmax(x, 1), _softmax, (_IMAGE,), work=4),
    "log_softmax": Definition(
        lambda F, algo, x: F.log_softmax(x, 1),
        lambda x: np.log(_softmax(x)),
        (_IMAGE,),
        "softmax",
        4,
    ),
    "cross_entropy": Definition(_call_cross_entropy, _cross_entropy, ((4, 7),), work=3),
    "ctc": Definition(_call_ctc, _ctc, ((4, 1, 3),), peer=False),
    "mse_loss": _pointwise_loss("mse_loss", lambda x, t: (x - t) ** 2),
    "huber_loss": _pointwise_loss(
        "huber_loss",
        lambda x, t: np.where(abs(x - t) < 1, (x - t) ** 2 / 2, abs(x - t) - 0.5),
    ),
    "binary_cross_entropy_with_logits": _pointwise_loss(
        "binary_cross_entropy_with_logits", lambda x, t: np.log1p(np.exp(x)) - t * x
    ),
    "dropout": Definition(_call_dropout, _dropout, (_IMAGE,), work=1, peer=False),
    "batch_norm": Definition(
        lambda F, algo, x, weight, bias: F.batch_norm(x, None, None, weight, bias, True),
        lambda x, weight, bias: _affine(_standard(x, (0, 2, 3)), weight, bias),
        (_IMAGE, (6,), (6,)),
        work=6,
    ),
    "group_norm": _group_norm(2),
    "group_norm_32": _group_norm(32),
    "layer_norm": Definition(
        lambda F, algo, x, weight, bias: F.layer_norm(x, weight.shape, weight, bias),
        lambda x, weight, bias: _standard(x, (-1,)) * weight + bias,
        ((5, 37), (37,), (37,)),
        "group_norm",
        6,
    ),
    "rms_norm": Definition(
        lambda F, algo, x, weight: F.rms_norm(x, weight.shape, weight, 1e-6),
        lambda x, weight: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight,
        ((5, 37), (37,)),
        work=4,
    ),
    "glu": Definition(
        lambda F, algo, x: F.glu(x), lambda x: x[:, :19] / (1 + np.exp(-x[:, 19:])), ((5, 38),)
    ),
    "local_response_norm": Definition(
        lambda F, algo, x: F.local_response_norm(x, 3, 0.5),
        _local_response_norm,
        (_IMAGE,),
        work=9,
    ),
    "lstm_cell": Definition(
        _call_lstm_cell, _lstm_cell, ((3, 5), (3, 7), (3, 7), (28, 5), (28, 7))
    ),
    "pdist": Definition(
        lambda F, algo, x: F.pdist(x),
        lambda x: np.sqrt(((x[:, None] - x) ** 2).sum(2))[np.triu_indices(len(x), 1)],
        ((13, 7),),
    ),
    **{
        f"row_distance.{p}": Definition(
            lambda F, algo, a, b, p=p: F.pairwise_distance(a, b, p),
            lambda a, b, p=p: np.linalg.norm(a - b + 1e-6, p, -1),
            ((5, 37),) * 2,
            "row_distance",
        )
        for p in (1.0, 2.0, 3.5, math.inf)
    },
    "row_distance.cosine": Definition(
        lambda F, algo, a, b: F.cosine_similarity(a, b),
        lambda a, b: (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)),
        ((5, 37),) * 2,
        "row_distance",
    ),
    "rsqrt": Definition(
        lambda F, algo, x: F.rsqrt(x * x),
        *(lambda x: 1 / np.abs(x), ((5, 37),), "elementwise", 2),
    ),
    "adam": Definition(_call_adam, _adam, ((5, 37),) * 4, "optimizer_step", 14, peer=False),
    "gru_cell": Definition(
        lambda F, algo, *inputs: F.gru_cell(*inputs), _gru_cell, ((3, 5), (3, 7), (21, 5), (21, 7))
    ),
    **_reduction("sum", "reduce", np.sum),
    **_reduction("mean", "reduce", np.mean),
    **_reduction("var", "reduce", lambda x, dim: x.var(dim, ddof=1), work=3),
    **_reduction("std", "reduce", lambda x, dim: x.std(dim, ddof=1), work=3),
    **_reduction("norm", "reduce", lambda x, dim: np.sqrt((x * x).sum(dim)), 2, work=2),
    **_reduction("amax", "extreme", np.max),
    **_reduction("max", "extreme", np.max),
    **{
        f"cumsum.{name}": Definition(
            lambda F, algo, x, dim=dim: F.cumsum(x, dim),
            lambda x, dim=dim: x.cumsum(dim),
            ((5, 37),),
            "cumsum",
            1,
        )
        for name, dim in (("last", -1), ("first", 0))
    },
}


def definitions_of(op: str, backend: str) -> list[Definition]:
    """Every definition that runs on the backend's kernels of an operation of the registry."""
    own = backend in ("ref", "cpu")
    return [d for name, d in DEFINITIONS.items() if (own and d.cpu_op or d.op or name) == op]
