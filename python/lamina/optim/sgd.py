"""Stochastic gradient descent with momentum (Sutskever et al. 2013 for Nesterov's form)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..functional._arguments import real
from .optimizer import Optimizer, at_least_zero, decayed


class SGD(Optimizer):
    """b <- momentum b + (1 - dampening) g;  p <- p - lr (nesterov ? g + momentum b : b)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "momentum", "weight_decay")
        dampening = real(op, "dampening", options["dampening"])
        if options["nesterov"] and (options["momentum"] <= 0 or dampening != 0):
            raise ValueError(
                f"{op}: nesterov needs a momentum above 0 and no dampening, got "
                f"momentum={options['momentum']}, dampening={dampening}"
            )

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        grad = decayed(array, grad, group)
        if group["momentum"]:
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = grad.copy()
            else:
                state["momentum_buffer"] *= group["momentum"]
                state["momentum_buffer"] += (1 - group["dampening"]) * grad
            buffer = state["momentum_buffer"]
            grad = grad + group["momentum"] * buffer if group["nesterov"] else buffer
        array -= group["lr"] * grad
