"""AdaGrad (Duchi et al. 2011) and AdaDelta (Zeiler 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .optimizer import Optimizer, check_options, decayed


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
        )
        check_options("Adagrad", **options)
        super().__init__(params, {**options, "maximize": maximize})

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        grad = decayed(array, grad, group)
        if "sum" not in state:
            state["sum"] = np.full_like(array, group["initial_accumulator_value"])
        state["sum"] += grad * grad
        rate = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        array -= rate * grad / (np.sqrt(state["sum"]) + group["eps"])


class Adadelta(Optimizer):
    """p <- p - lr d, d = sqrt(u + eps) / sqrt(v + eps) g; v, u decaying means of g^2 and d^2."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        check_options("Adadelta", lr=lr, eps=eps, weight_decay=weight_decay)
        if not 0 <= rho <= 1:
            raise ValueError(f"Adadelta: rho must be from 0 to 1, got rho={rho}")
        options = dict(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
        super().__init__(params, options)

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        grad = decayed(array, grad, group)
        if "square_avg" not in state:
            state["square_avg"], state["acc_delta"] = np.zeros_like(array), np.zeros_like(array)
        square, moved, rho = state["square_avg"], state["acc_delta"], group["rho"]
        square *= rho
        square += (1 - rho) * grad * grad
        delta = np.sqrt(moved + group["eps"]) / np.sqrt(square + group["eps"]) * grad
        moved *= rho
        moved += (1 - rho) * delta * delta
        array -= group["lr"] * delta
