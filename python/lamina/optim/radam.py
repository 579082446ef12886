"""RAdam: Adam that waits until its mean square is trustworthy (Liu et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .optimizer import Optimizer, arrays_of, at_least_zero, decay_rates, fused


class RAdam(Optimizer):
    """p <- p - lr m' r / (sqrt(v') + eps) once the mean square counts over 5 gradients, else lr m'.

    That count is n = N - 2 t beta2^t / (1 - beta2^t), N = 2 / (1 - beta2) - 1, and
    r^2 = (n - 4) (n - 2) N / ((N - 4) (N - 2) n); m', v' as in Adam.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=decoupled_weight_decay,
            maximize=maximize,
        )
        super().__init__(params, options)

    def check(self, op: str, options: dict[str, Any]) -> None:
        at_least_zero(op, options, "lr", "eps", "weight_decay")
        decay_rates(op, options)

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        (beta1, beta2), step = group["betas"], state["step"]
        rate = group["lr"] / (1 - beta1**step)
        correction = 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / correction
        trusted = length > 5
        if trusted:
            ratio = (length - 4) * (length - 2) * longest
            ratio /= (longest - 4) * (longest - 2) * length
            # torch adds eps before it corrects the bias of the root, unlike in Adam.
            rate *= math.sqrt(ratio * correction)
        states = arrays_of(state, array, "exp_avg", "exp_avg_sq")
        coefficients = (1 - beta1, beta2, 1 - beta2, group["eps"], rate, trusted)
        return fused("radam", array, grad, states, group, *coefficients)
