"""RMSProp (Hinton 2012, lecture 6)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .optimizer import Optimizer, arrays_of, at_least_zero, fused


class RMSprop(Optimizer):
    """v <- alpha v + (1 - alpha) g^2;  p <- p - lr g / (sqrt(v) + eps).

    centered: v less the square of the mean of g. momentum: the quotient enters a buffer first.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "alpha", "eps", "weight_decay", "momentum")

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        alpha, momentum = group["alpha"], group["momentum"]
        rule, keys = "rmsprop", ["square_avg"]
        if group["centered"]:
            rule += "_centered"
            keys.append("grad_avg")
        if momentum:
            rule += "_momentum"
            keys.append("momentum_buffer")
        coefficients = (alpha, 1 - alpha, group["eps"], group["lr"], momentum)
        return fused(rule, array, grad, arrays_of(state, array, *keys), group, *coefficients)
