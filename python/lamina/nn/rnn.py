"""Recurrent cells: one time step of the plain RNN, the LSTM and the GRU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional as F
from ..functional._arguments import integer, one_of
from . import init
from .module import Module
from .parameter import Parameter

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]


class _Cell(Module):
    """weight_ih [gates * hidden, input], weight_hh [gates * hidden, hidden], biases likewise."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, gates: int, dtype: Any
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.input_size = integer(name, "input_size", input_size, 1)
        self.hidden_size = integer(name, "hidden_size", hidden_size, 1)
        self.bias = bool(bias)
        rows = gates * self.hidden_size
        self.weight_ih = Parameter(np.empty((rows, self.input_size), dtype))
        self.weight_hh = Parameter(np.empty((rows, self.hidden_size), dtype))
        for kind in ("bias_ih", "bias_hh"):
            self.register_parameter(kind, Parameter(np.empty(rows, dtype)) if bias else None)

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(hidden_size)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _zeros(self, input: Any) -> Any:
        shape = (*input.shape[:-1], self.hidden_size)
        return np.zeros(shape, self.weight_hh.dtype)

    @property
    def _weights(self) -> tuple[Any, ...]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """`functional.rnn_tanh_cell` or `rnn_relu_cell`; hx defaults to zeros."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, dtype)
        self.nonlinearity = one_of("RNNCell", "nonlinearity", nonlinearity, ("tanh", "relu"))
        self.reset_parameters()

    def forward(self, input: Any, hx: Any = None) -> Any:
        cell = F.rnn_tanh_cell if self.nonlinearity == "tanh" else F.rnn_relu_cell
        return cell(input, self._zeros(input) if hx is None else hx, *self._weights)

    def extra_repr(self) -> str:
        shown = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + shown


class LSTMCell(_Cell):
    """`functional.lstm_cell`; hx = (h, c) defaults to zeros.

    peephole adds weight_peephole [3, H] (coupled: [2, H]), which starts at zero so that the cell
    starts as a plain one. coupled ties the forget gate to 1 - i: the weights have three gates.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        peephole: bool = False,
        coupled: bool = False,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3 if coupled else 4, dtype)
        self.coupled = bool(coupled)
        shape = (2 if coupled else 3, self.hidden_size)
        self.register_parameter(
            "weight_peephole", Parameter(np.empty(shape, dtype)) if peephole else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.weight_peephole is not None:
            init.zeros_(self.weight_peephole)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        if hx is None:
            hx = self._zeros(input), self._zeros(input)
        return F.lstm_cell(
            input, hx, *self._weights, weight_peephole=self.weight_peephole, coupled=self.coupled
        )

    def extra_repr(self) -> str:
        shown = "" if self.weight_peephole is None else ", peephole=True"
        return super().extra_repr() + shown + (", coupled=True" if self.coupled else "")


class GRUCell(_Cell):
    """`functional.gru_cell`; hx defaults to zeros."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: Any = np.float32
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, dtype)
        self.reset_parameters()

    def forward(self, input: Any, hx: Any = None) -> Any:
        return F.gru_cell(input, self._zeros(input) if hx is None else hx, *self._weights)
