"""One time step of the plain RNN, the LSTM and the GRU, with the gradients of all inputs.

x [N, I], hidden state [N, H], weight_ih [G H, I], weight_hh [G H, H], biases [G H]; the G gates
are stacked in the order named by each function. Biases may be None.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real
from .activation import sigmoid

MaybeArray = ArrayLike | None


def _affine(x: Array, weight: ArrayLike, bias: MaybeArray) -> Array:
    return x @ real(weight).T + (0.0 if bias is None else real(bias))


def _affine_backward(g: Array, x: Array, weight: ArrayLike) -> tuple[Array, Array, Array]:
    """Gradients for x, weight and bias of x weight^T + bias."""
    return g @ real(weight), g.T @ x, g.sum(0)


def rnn_cell(
    x: ArrayLike,
    hx: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: MaybeArray = None,
    bias_hh: MaybeArray = None,
    nonlinearity: str = "tanh",
) -> Array:
    """f(x W_ih^T + b_ih + h W_hh^T + b_hh), f tanh or relu (Elman 1990)."""
    a = _affine(real(x), weight_ih, bias_ih) + _affine(real(hx), weight_hh, bias_hh)
    return np.tanh(a) if nonlinearity == "tanh" else np.where(a <= 0, 0.0, a)


def rnn_cell_backward(
    grad_h: ArrayLike,
    x: ArrayLike,
    hx: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: MaybeArray = None,
    bias_hh: MaybeArray = None,
    nonlinearity: str = "tanh",
) -> tuple[Array, ...]:
    """Gradients for x, hx, weight_ih, weight_hh, bias_ih, bias_hh."""
    x, hx = real(x), real(hx)
    h = rnn_cell(x, hx, weight_ih, weight_hh, bias_ih, bias_hh, nonlinearity)
    g = real(grad_h) * (1 - h**2 if nonlinearity == "tanh" else h > 0)
    grad_x, grad_wi, grad_bi = _affine_backward(g, x, weight_ih)
    grad_hx, grad_wh, grad_bh = _affine_backward(g, hx, weight_hh)
    return grad_x, grad_hx, grad_wi, grad_wh, grad_bi, grad_bh


def _lstm_gates(x, hx, weight_ih, weight_hh, bias_ih, bias_hh, peephole, coupled):
    """i, f, g, o, the new cell and the peephole rows i, f, o."""
    h, c = (real(v) for v in hx)
    a = _affine(real(x), weight_ih, bias_ih) + _affine(h, weight_hh, bias_hh)
    p = np.zeros((3, c.shape[-1])) if peephole is None else real(peephole)
    if coupled:
        a_i, a_g, a_o = np.split(a, 3, -1)
        i = sigmoid(a_i + p[0] * c)
        f = 1 - i
    else:
        a_i, a_f, a_g, a_o = np.split(a, 4, -1)
        i, f = sigmoid(a_i + p[0] * c), sigmoid(a_f + p[1] * c)
    g = np.tanh(a_g)
    new_c = f * c + i * g
    return i, f, g, sigmoid(a_o + p[-1] * new_c), new_c, p


def lstm_cell(
    x: ArrayLike,
    hx: tuple[ArrayLike, ArrayLike],
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: MaybeArray = None,
    bias_hh: MaybeArray = None,
    weight_peephole: MaybeArray = None,
    coupled: bool = False,
) -> tuple[Array, Array]:
    """c' = f c + i g, h' = o tanh(c'); hx = (h, c), gates i, f, g, o. Returns (h', c').

    weight_peephole [3, H] (rows i, f, o): i and f also see its product with c, o that with c'
    (Gers & Schmidhuber 2000). coupled: f = 1 - i, gates i, g, o (Greff et al. 2017, CIFG); then
    the peephole rows may be i, o alone, and a row f has no effect.
    """
    args = (weight_ih, weight_hh, bias_ih, bias_hh, weight_peephole, coupled)
    _, _, _, o, c, _ = _lstm_gates(x, hx, *args)
    return o * np.tanh(c), c


def lstm_cell_backward(
    grad_h: ArrayLike,
    grad_c: ArrayLike,
    x: ArrayLike,
    hx: tuple[ArrayLike, ArrayLike],
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: MaybeArray = None,
    bias_hh: MaybeArray = None,
    weight_peephole: MaybeArray = None,
    coupled: bool = False,
) -> tuple[Array, ...]:
    """Gradients for x, h, c, weight_ih, weight_hh, bias_ih, bias_hh [, weight_peephole]."""
    x, h, c = real(x), *(real(v) for v in hx)
    args = (weight_ih, weight_hh, bias_ih, bias_hh, weight_peephole, coupled)
    i, f, g, o, new_c, p = _lstm_gates(x, hx, *args)
    grad_h, t = real(grad_h), np.tanh(new_c)
    d_o = grad_h * t * o * (1 - o)
    d_new_c = real(grad_c) + grad_h * o * (1 - t**2) + d_o * p[-1]
    d_g = d_new_c * i * (1 - g**2)
    if coupled:
        d_i = d_new_c * (g - c) * i * (1 - i)
        d_c = d_new_c * f + d_i * p[0]
        d_a, d_f = np.concatenate([d_i, d_g, d_o], -1), np.zeros_like(d_i)
    else:
        d_i = d_new_c * g * i * (1 - i)
        d_f = d_new_c * c * f * (1 - f)
        d_c = d_new_c * f + d_i * p[0] + d_f * p[1]
        d_a = np.concatenate([d_i, d_f, d_g, d_o], -1)
    grad_x, grad_wi, grad_bi = _affine_backward(d_a, x, weight_ih)
    grad_h0, grad_wh, grad_bh = _affine_backward(d_a, h, weight_hh)
    grads = grad_x, grad_h0, d_c, grad_wi, grad_wh, grad_bi, grad_bh
    if weight_peephole is None:
        return grads
    rows = [(d_i * c).sum(0), (d_f * c).sum(0), (d_o * new_c).sum(0)]
    return *grads, np.stack(rows if len(p) == 3 else [rows[0], rows[2]])


def _gru_gates(x, h, weight_ih, weight_hh, bias_ih, bias_hh, reset_after):
    """r, z, n and the hidden part of n before (reset_after) or after its product with r."""
    size = h.shape[-1]
    weight_hh = real(weight_hh)
    bias_hh = np.zeros(3 * size) if bias_hh is None else real(bias_hh)
    x_r, x_z, x_n = np.split(_affine(x, weight_ih, bias_ih), 3, -1)
    h_r, h_z = np.split(_affine(h, weight_hh[: 2 * size], bias_hh[: 2 * size]), 2, -1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    seen = h if reset_after else r * h
    h_n = _affine(seen, weight_hh[2 * size :], bias_hh[2 * size :])
    return r, z, np.tanh(x_n + (r * h_n if reset_after else h_n)), h_n


def gru_cell(
    x: ArrayLike,
    hx: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: MaybeArray = None,
    bias_hh: MaybeArray = None,
    reset_after: bool = True,
) -> Array:
    """(1 - z) n + z h, gates r, z, n (Cho et al. 2014).

    reset_after: n = tanh(x_n + r (W_n h + b_n)), as cuDNN and PyTorch; otherwise the paper's
    n = tanh(x_n + W_n (r h) + b_n).
    """
    h = real(hx)
    _, z, n, _ = _gru_gates(real(x), h, weight_ih, weight_hh, bias_ih, bias_hh, reset_after)
    return (1 - z) * n + z * h


def gru_cell_backward(
    grad_h: ArrayLike,
    x: ArrayLike,
    hx: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias_ih: MaybeArray = None,
    bias_hh: MaybeArray = None,
    reset_after: bool = True,
) -> tuple[Array, ...]:
    """Gradients for x, hx, weight_ih, weight_hh, bias_ih, bias_hh."""
    grad_h, x, h, weight_hh = real(grad_h), real(x), real(hx), real(weight_hh)
    r, z, n, h_n = _gru_gates(x, h, weight_ih, weight_hh, bias_ih, bias_hh, reset_after)
    rz_rows, n_rows = weight_hh[: 2 * h.shape[-1]], weight_hh[2 * h.shape[-1] :]
    d_n = grad_h * (1 - z) * (1 - n**2)
    d_z = grad_h * (h - n) * z * (1 - z)
    if reset_after:
        d_r = d_n * h_n * r * (1 - r)
        grad_seen, grad_wn, grad_bn = _affine_backward(d_n * r, h, n_rows)
    else:
        grad_seen, grad_wn, grad_bn = _affine_backward(d_n, r * h, n_rows)
        d_r = grad_seen * h * r * (1 - r)
        grad_seen = grad_seen * r
    grad_x, grad_wi, grad_bi = _affine_backward(np.concatenate([d_r, d_z, d_n], -1), x, weight_ih)
    grad_rz, grad_wrz, grad_brz = _affine_backward(np.concatenate([d_r, d_z], -1), h, rz_rows)
    grad_hx = grad_h * z + grad_rz + grad_seen
    grad_wh = np.concatenate([grad_wrz, grad_wn])
    return grad_x, grad_hx, grad_wi, grad_wh, grad_bi, np.concatenate([grad_brz, grad_bn])
