"""Rates that fall when a metric stops getting better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...functional._arguments import integer, one_of, real
from ..optimizer import Optimizer
from .base import LRScheduler, checked_optimizer, for_each_group


class ReduceLROnPlateau(LRScheduler):
    """rate * factor after `patience` epochs without a better metric.

    Better by the threshold, a share of the best metric ('rel') or a difference ('abs'). Epochs of
    `cooldown` after a reduction do not count; no rate falls below min_lr or by less than eps.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        name = "ReduceLROnPlateau"
        self.optimizer = checked_optimizer(self, optimizer)
        self.mode = one_of(name, "mode", mode, ("min", "max"))
        self.threshold_mode = one_of(name, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.factor = real(name, "factor", factor)
        if not 0 <= self.factor < 1:
            raise ValueError(f"{name}: factor must be from 0 to below 1, got factor={factor}")
        self.patience = integer(name, "patience", patience, 0)
        self.cooldown = integer(name, "cooldown", cooldown, 0)
        self.threshold = real(name, "threshold", threshold)
        self.eps = real(name, "eps", eps)
        self.min_lrs = for_each_group(self, optimizer, "min_lr", min_lr)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self._scaled(1)

    def _better(self, metric: float) -> bool:
        margin = -self.threshold if self.mode == "min" else self.threshold
        relative = self.threshold_mode == "rel"
        bound = self.best * (1 + margin) if relative else self.best + margin
        return metric < bound if self.mode == "min" else metric > bound

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Takes the epoch's metric, a number or a Tensor of one element."""
        metric = float(metrics)
        self.last_epoch += 1
        self.num_bad_epochs += 1
        if self._better(metric):
            self.best, self.num_bad_epochs = metric, 0
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, low in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                rate = max(group["lr"] * self.factor, low)
                if group["lr"] - rate > self.eps:
                    group["lr"] = rate
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._scaled(1)
