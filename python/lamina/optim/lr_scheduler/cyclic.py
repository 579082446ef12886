"""Rates that rise and fall while the momentum falls and rises (Smith 2017, Smith & Topin 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...functional._arguments import integer, one_of, real
from ..optimizer import Optimizer
from .base import LRScheduler, checked_optimizer, for_each_group
from .decay import Factor


class _MomentumScheduler(LRScheduler):
    """Schedules that move the momentum (or Adam's first beta) against the rate."""

    relative = False

    def _check_momentum(self, optimizer: Optimizer) -> None:
        defaults = checked_optimizer(self, optimizer).defaults
        if "momentum" not in defaults and "betas" not in defaults:
            raise ValueError(
                f"{type(self).__name__}: cycle_momentum needs an optimizer with momentum or betas, "
                f"got {type(optimizer).__name__}; use cycle_momentum=False"
            )

    def _write_momentum(self, group: dict[str, Any], value: float) -> None:
        if "betas" in group:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value


class CyclicLR(_MomentumScheduler):
    """Triangles between base_lr and max_lr, step_size_up epochs up and step_size_down down.

    mode 'triangular2' halves the height every cycle, 'exp_range' multiplies it by gamma^epoch;
    scale_fn replaces them, as a function of the cycle or (scale_mode 'iterations') of the epoch.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Factor | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ) -> None:
        if scale_fn is None:
            one_of("CyclicLR", "mode", mode, ("triangular", "triangular2", "exp_range"))
        one_of("CyclicLR", "scale_mode", scale_mode, ("cycle", "iterations"))
        if cycle_momentum:
            self._check_momentum(optimizer)
        self.max_lrs = for_each_group(self, optimizer, "max_lr", max_lr)
        up = integer("CyclicLR", "step_size_up", step_size_up, 1)
        down = up
        if step_size_down is not None:
            down = integer("CyclicLR", "step_size_down", step_size_down, 1)
        self.total_size = float(up + down)
        self.step_ratio = up / self.total_size
        self.gamma = real("CyclicLR", "gamma", gamma)
        self.mode, self.scale_fn, self.scale_mode = mode, scale_fn, scale_mode
        self.cycle_momentum = cycle_momentum
        self.base_momentums = for_each_group(self, optimizer, "base_momentum", base_momentum)
        self.max_momentums = for_each_group(self, optimizer, "max_momentum", max_momentum)
        starts = for_each_group(self, optimizer, "base_lr", base_lr)
        if last_epoch == -1:
            for group, start in zip(optimizer.param_groups, starts, strict=True):
                group["lr"] = start
        super().__init__(optimizer, last_epoch)
        self.base_lrs = starts

    def _scale(self, cycle: int) -> float:
        if self.scale_fn is not None:
            return self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.mode == "triangular":
            return 1.0
        if self.mode == "triangular2":
            return 1 / 2.0 ** (cycle - 1)
        return self.gamma**self.last_epoch

    def get_lr(self) -> list[float]:
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1 + self.last_epoch / self.total_size - cycle
        share = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        share *= self._scale(cycle)
        if self.cycle_momentum:
            bounds = zip(self.base_momentums, self.max_momentums, strict=True)
            for group, (low, high) in zip(self.optimizer.param_groups, bounds, strict=True):
                self._write_momentum(group, high - (high - low) * share)
        return [
            base + (top - base) * share
            for base, top in zip(self.base_lrs, self.max_lrs, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser and the function."""
        return {key: value for key, value in super().state_dict().items() if key != "scale_fn"}


class OneCycleLR(_MomentumScheduler):
    """From max_lr / div_factor up to max_lr and down to a final_div_factor-th of the start.

    The rise takes pct_start of the epochs; three_phase falls back to the start first, as long.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(
                    "OneCycleLR: give total_steps, or epochs and steps_per_epoch, got "
                    f"epochs={epochs}, steps_per_epoch={steps_per_epoch}"
                )
            total_steps = integer("OneCycleLR", "epochs", epochs, 1) * integer(
                "OneCycleLR", "steps_per_epoch", steps_per_epoch, 1
            )
        self.total_steps = integer("OneCycleLR", "total_steps", total_steps, 1)
        rise = real("OneCycleLR", "pct_start", pct_start)
        if not 0 <= rise <= 1:
            raise ValueError(f"OneCycleLR: pct_start must be from 0 to 1, got pct_start={rise}")
        for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if not real("OneCycleLR", name, value) > 0:
                raise ValueError(f"OneCycleLR: {name} must be above 0, got {name}={value}")
        self.anneal_strategy = one_of(
            "OneCycleLR", "anneal_strategy", anneal_strategy, ("cos", "linear")
        )
        if cycle_momentum:
            self._check_momentum(optimizer)
        self.cycle_momentum = cycle_momentum
        end, up = self.total_steps - 1, rise * self.total_steps - 1
        # (end, from, to): the last epoch of a phase and which of start, top, final it joins
        self.phases = [(up, 0, 1), (end, 1, 2)]
        if three_phase:
            self.phases = [(up, 0, 1), (2 * rise * self.total_steps - 2, 1, 0), (end, 0, 2)]
        tops = for_each_group(self, optimizer, "max_lr", max_lr)
        self.levels = [(top / div_factor, top, top / div_factor / final_div_factor) for top in tops]
        low = for_each_group(self, optimizer, "base_momentum", base_momentum)
        high = for_each_group(self, optimizer, "max_momentum", max_momentum)
        self.momentums = [(h, l, h) for l, h in zip(low, high, strict=True)]
        if last_epoch == -1:
            for group, level in zip(optimizer.param_groups, self.levels, strict=True):
                group["initial_lr"] = level[0]
        super().__init__(optimizer, last_epoch)

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))

    def get_lr(self) -> list[float]:
        # A loop of total_steps steps ends at epoch total_steps, whose rates nobody uses.
        if self.last_epoch > self.total_steps:
            raise ValueError(
                "OneCycleLR: the schedule must not go beyond total_steps, got "
                f"step {self.last_epoch}, total_steps={self.total_steps}"
            )
        start = 0.0
        phases = iter(self.phases)
        end, source, target = next(phases)
        for phase in phases:
            if self.last_epoch <= end:
                break
            start, (end, source, target) = end, phase
        # A phase without length (one step in all) is over at once.
        share = (self.last_epoch - start) / (end - start) if end != start else 1.0
        if self.cycle_momentum:
            pairs = zip(self.optimizer.param_groups, self.momentums, strict=True)
            for group, values in pairs:
                self._write_momentum(group, self._anneal(values[source], values[target], share))
        return [self._anneal(level[source], level[target], share) for level in self.levels]
