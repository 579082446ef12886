"""Rprop: steps from the gradient's sign alone, for whole batches (Riedmiller & Braun 1993)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..functional._arguments import real
from .optimizer import Optimizer, at_least_zero, fused


class Rprop(Optimizer):
    """p <- p - s sign(g); s grows by etas[1] while the sign stays and shrinks by etas[0] if not.

    After a change of sign the gradient counts as zero for one step. s begins at lr and stays
    within step_sizes.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize)
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr")
        for name in ("etas", "step_sizes"):
            pair = options[name]
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"{op}: {name} must be two numbers, got {name}={pair!r}")
        shrink, grow = (real(op, "etas", eta) for eta in options["etas"])
        if not 0 < shrink < 1 < grow:
            raise ValueError(f"{op}: etas must be 0 < etas[0] < 1 < etas[1], got {options['etas']}")
        low, high = (real(op, "step_sizes", size) for size in options["step_sizes"])
        if not 0 <= low <= high:
            raise ValueError(
                f"{op}: step_sizes must be 0 <= step_sizes[0] <= step_sizes[1], "
                f"got step_sizes={options['step_sizes']}"
            )

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        if "prev" not in state:
            state["prev"] = np.zeros_like(array)
            state["step_size"] = np.full_like(array, group["lr"])
        states = [state["prev"], state["step_size"]]
        return fused("rprop", array, grad, states, group, *group["etas"], *group["step_sizes"])
