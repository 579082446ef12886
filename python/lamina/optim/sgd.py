"""Stochastic gradient descent with momentum (Sutskever et al. 2013 for Nesterov's form)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..functional._arguments import real
from .optimizer import Optimizer, arrays_of, at_least_zero, fused


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

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        lr, momentum = group["lr"], group["momentum"]
        if not momentum:
            return fused("sgd", array, grad, [], group, lr)
        share = 1 - group["dampening"] if "momentum_buffer" in state else 1.0
        states = arrays_of(state, array, "momentum_buffer")
        return fused("momentum", array, grad, states, group, lr, momentum, share, group["nesterov"])
