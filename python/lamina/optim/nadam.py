"""NAdam: Adam with Nesterov's momentum on a schedule (Dozat 2016)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .optimizer import Optimizer, arrays_of, at_least_zero, decay_rates, fused


class NAdam(Optimizer):
    """p <- p - lr ((1 - mu_t) / (1 - M_t) g + mu_{t+1} / (1 - M_{t+1}) m) / (sqrt(v') + eps).

    mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2) and M_t = mu_1 ... mu_t; m, v' as in Adam.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            momentum_decay=momentum_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "eps", "weight_decay", "momentum_decay")
        decay_rates(op, options)

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        (beta1, beta2), step, lr = group["betas"], state["step"], group["lr"]
        now, after = (
            beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1)
        )
        product = state["mu_product"] = state.get("mu_product", 1.0) * now
        return fused(
            "nadam",
            array,
            grad,
            arrays_of(state, array, "exp_avg", "exp_avg_sq"),
            group,
            1 - beta1,
            beta2,
            1 - beta2,
            math.sqrt(1 - beta2**step),
            group["eps"],
            lr * (1 - now) / (1 - product),
            lr * after / (1 - product * after),
        )
