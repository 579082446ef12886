"""`Linear`: y = x weight^T + bias."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..functional._arguments import integer
from . import init
from .module import Module
from .parameter import Parameter


class Linear(Module):
    """weight [out_features, in_features], bias [out_features].

    activation as in functional.linear; a call may name a `residual`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: Any = np.float32,
        *,
        activation: Any = None,
    ) -> None:
        super().__init__()
        # No features at all are legal, as in torch.
        self.in_features = integer("Linear", "in_features", in_features, 0)
        self.out_features = integer("Linear", "out_features", out_features, 0)
        self.activation = activation
        self.weight = Parameter(np.empty((out_features, in_features), dtype))
        self.register_parameter("bias", Parameter(np.empty(out_features, dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.torch_default_(self.weight, self.bias)

    def forward(self, input: Any, *, residual: Any = None) -> Any:
        return F.linear(
            input, self.weight, self.bias, activation=self.activation, residual=residual
        )

    def extra_repr(self) -> str:
        words = f"in_features={self.in_features}, out_features={self.out_features}, "
        words += f"bias={self.bias is not None}"
        return words + (f", activation={self.activation!r}" if self.activation else "")
