"""One time step of the plain RNN, the LSTM and the GRU.

input [N, I] or [I], hidden states [N, H] or [H], weight_ih [G * H, I], weight_hh [G * H, H], biases
[G * H] or None, all float32 or all float64. The G gates are stacked in torch's order. Two linear
layers make the gates' sums; one fused kernel does the rest (csrc/ops/rnn.h).
All functions raise ValueError for shapes that do not match and TypeError for dtypes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _C, arrays
from ..autograd import Function
from ._arguments import check_rank, same_dtype
from .conv import as_operand
from .linear import linear

__all__ = ["gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"]


class LstmCell(Function):
    """(h', c') from the gates' sums, which it overwrites, c, and the peepholes or None."""

    kernels_only = True

    @staticmethod
    def forward(ctx: Any, gates: Any, c: Any, peephole: Any, coupled: bool) -> Any:
        new_h, new_c = arrays.empty_like("rnn", c), arrays.empty_like("rnn", c)
        ctx.layout = (*c.shape, coupled)
        _C.lstm_cell_fprop(*(*ctx.layout, c, peephole, gates, new_c, new_h))
        ctx.save_for_backward(c, peephole, gates, new_c)
        return new_h, new_c

    @staticmethod
    def backward(ctx: Any, grad_h: Any, grad_c: Any) -> Any:
        c, peephole, gates, new_c = ctx.saved
        grads = [
            np.zeros_like(c) if g is None else arrays.asarray("lstm_cell", "grad_y", g)
            for g in (grad_h, grad_c)
        ]
        grad_gates, grad_old_c = arrays.empty_like("rnn", gates), arrays.empty_like("rnn", c)
        grad_peephole = None if peephole is None else arrays.empty_like("rnn", peephole)
        results = grad_gates, grad_old_c, grad_peephole
        _C.lstm_cell_dgrad(*(*ctx.layout, c, peephole, gates, new_c, *grads, *results))
        return grad_gates, grad_old_c, grad_peephole, None


class GruCell(Function):
    """h' from h and the sums over x and over h, which it overwrites."""

    kernels_only = True

    @staticmethod
    def forward(ctx: Any, h: Any, gates: Any, b: Any) -> Any:
        new_h = arrays.empty_like("rnn", h)
        _C.gru_cell_fprop(*(*h.shape, h, gates, b, new_h))
        ctx.save_for_backward(h, gates, b)
        return new_h

    @staticmethod
    def backward(ctx: Any, grad_new_h: Any) -> Any:
        h, gates, b = ctx.saved
        grad_new_h = arrays.asarray("gru_cell", "grad_y", grad_new_h)
        grad_a, grad_b, grad_h = (
            arrays.empty_like("rnn", gates),
            arrays.empty_like("rnn", gates),
            arrays.empty_like("rnn", h),
        )
        _C.gru_cell_dgrad(*(*h.shape, h, gates, b, grad_new_h, grad_a, grad_b, grad_h))
        return grad_h, grad_a, grad_b


def _check_size(op: str, name: str, array: Any, shape: tuple[int, ...], why: str) -> None:
    if array is not None and array.shape != shape:
        raise ValueError(
            f"{op}: {name} must have shape {shape} ({why}), got {name}.shape={array.shape}"
        )


def _operands(
    op: str,
    gates: int,
    input: Any,
    states: dict[str, Any],
    weights: tuple[Any, Any, Any, Any],
) -> tuple[list[Any], bool]:
    """Checked [x, *states, *weights]; whether the batch axis was added."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    given = {"input": input, **states, **dict(zip(names, weights, strict=True))}
    checked: dict[str, Any] = {
        name: None if value is None and name.startswith("bias") else as_operand(op, name, value)
        for name, value in given.items()
    }
    x, weight_ih, weight_hh = (checked[name] for name in ("input", "weight_ih", "weight_hh"))
    same_dtype(op, **checked)
    check_rank(op, "input", x, (1, 2), "(a batch axis is optional)")
    check_rank(op, "weight_ih", weight_ih, (2,))
    check_rank(op, "weight_hh", weight_hh, (2,))
    hidden, features = weight_hh.shape[1], x.shape[-1]
    rows = gates * hidden
    why = f"{gates} gates of hidden size {hidden} = weight_hh.shape[1]"
    _check_size(op, "weight_hh", weight_hh, (rows, hidden), why)
    _check_size(op, "weight_ih", weight_ih, (rows, features), f"{why}, input size {features}")
    for name in ("bias_ih", "bias_hh"):
        _check_size(op, name, checked[name], (rows,), why)
    unbatched = x.ndim == 1
    lead = () if unbatched else (x.shape[0],)
    for name in states:
        _check_size(op, name, checked[name], (*lead, hidden), "batch of input, hidden size")
    if unbatched:
        for name in ("input", *states):
            checked[name] = checked[name].reshape(1, -1)
    return list(checked.values()), unbatched


def _rnn_cell(op: str, f: str, input: Any, hx: Any, weights: tuple[Any, Any, Any, Any]) -> Any:
    operands, unbatched = _operands(op, 1, input, {"hx": hx}, weights)
    x, h, weight_ih, weight_hh, bias_ih, bias_hh = operands
    h = linear(h, weight_hh, bias_hh, residual=linear(x, weight_ih, bias_ih), activation=f)
    return h.reshape(-1) if unbatched else h


def rnn_tanh_cell(
    input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """tanh(input w_ih^T + b_ih + hx w_hh^T + b_hh), [N, H] (Elman 1990)."""
    return _rnn_cell("rnn_tanh_cell", "tanh", input, hx, (w_ih, w_hh, b_ih, b_hh))


def rnn_relu_cell(
    input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """max(input w_ih^T + b_ih + hx w_hh^T + b_hh, 0), [N, H]."""
    return _rnn_cell("rnn_relu_cell", "relu", input, hx, (w_ih, w_hh, b_ih, b_hh))


def lstm_cell(
    input: Any,
    hx: Any,
    w_ih: Any,
    w_hh: Any,
    b_ih: Any = None,
    b_hh: Any = None,
    *,
    weight_peephole: Any = None,
    coupled: bool = False,
) -> tuple[Any, Any]:
    """(h', c') with c' = f c + i g and h' = o tanh(c'); hx = (h, c), gates i, f, g, o.

    Hochreiter & Schmidhuber 1997, Gers et al. 2000. weight_peephole [3, H] (rows i, f, o): i and f
    also see its product with c, o that with c' (Gers & Schmidhuber 2000). coupled: f = 1 - i, gates
    i, g, o, weight_peephole [2, H] (rows i, o) (Greff et al. 2017).
    """
    op = "lstm_cell"
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        raise ValueError(f"{op}: hx must be the pair (h, c), got {type(hx).__name__}")
    if not isinstance(coupled, bool | np.bool_):
        raise TypeError(f"{op}: coupled must be True or False, got coupled={coupled!r}")
    states = {"h": hx[0], "c": hx[1]}
    gates = 3 if coupled else 4
    operands, unbatched = _operands(op, gates, input, states, (w_ih, w_hh, b_ih, b_hh))
    peephole = None
    if weight_peephole is not None:
        peephole = as_operand(op, "weight_peephole", weight_peephole)
        same_dtype(op, input=operands[0], weight_peephole=peephole)
        shape = (gates - 1, operands[1].shape[1])
        _check_size(op, "weight_peephole", peephole, shape, "one row a gate that sees the cell")
    x, h, c, weight_ih, weight_hh, bias_ih, bias_hh = operands
    gates = linear(h, weight_hh, bias_hh, residual=linear(x, weight_ih, bias_ih))
    h, c = LstmCell.apply(gates, c, peephole, bool(coupled))
    return (h.reshape(-1), c.reshape(-1)) if unbatched else (h, c)


def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """(1 - z) n + z hx, gates r, z, n (Cho et al. 2014; n = tanh(x_n + r h_n) as in cuDNN)."""
    operands, unbatched = _operands("gru_cell", 3, input, {"hx": hx}, (w_ih, w_hh, b_ih, b_hh))
    x, h, weight_ih, weight_hh, bias_ih, bias_hh = operands
    h = GruCell.apply(h, linear(x, weight_ih, bias_ih), linear(h, weight_hh, bias_hh))
    return h.reshape(-1) if unbatched else h
