"""Adam (Kingma & Ba 2015), AMSGrad (Reddi et al. 2018) and AdamW (Loshchilov & Hutter 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .optimizer import Optimizer, arrays_of, at_least_zero, decay_rates, fused


class Adam(Optimizer):
    """p <- p - lr m' / (sqrt(v') + eps), m' and v' bias-corrected decayed means of g and g^2.

    amsgrad: v is the largest so far. decoupled_weight_decay: as in AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        options = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "eps", "weight_decay")
        decay_rates(op, options)

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        keys = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        beta1, beta2 = group["betas"]
        correction1, correction2 = (1 - beta ** state["step"] for beta in group["betas"])
        return fused(
            "amsgrad" if group["amsgrad"] else "adam",
            array,
            grad,
            arrays_of(state, array, *keys),
            group,
            1 - beta1,
            beta2,
            1 - beta2,
            math.sqrt(correction2),
            group["eps"],
            group["lr"] / correction1,
        )


class AdamW(Adam):
    """Adam whose weight decay acts on the parameters directly."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )
