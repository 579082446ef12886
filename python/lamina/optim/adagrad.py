"""AdaGrad (Duchi et al. 2011)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .optimizer import Optimizer, at_least_zero, fused


class Adagrad(Optimizer):
    """s <- s + g^2;  p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(
            lr=lr,
            lr_decay=lr_decay,
            eps=eps,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            maximize=maximize,
        )
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(
            op, options, "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"
        )

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        if "sum" not in state:
            state["sum"] = np.full_like(array, group["initial_accumulator_value"])
        rate = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        return fused("adagrad", array, grad, [state["sum"]], group, group["eps"], rate)
