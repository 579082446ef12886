"""Schedules made of schedules: one after the other, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from ...functional._arguments import integer
from ..optimizer import Optimizer
from .base import LRScheduler, checked_optimizer
from .plateau import ReduceLROnPlateau


class _Combined(LRScheduler):
    """Keeps the schedulers and their states."""

    _schedulers: list[LRScheduler]

    def _check(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None) -> None:
        name = type(self).__name__
        if not schedulers:
            raise ValueError(f"{name}: schedulers must not be empty, got {schedulers!r}")
        for index, scheduler in enumerate(schedulers):
            if not isinstance(scheduler, LRScheduler):
                raise TypeError(
                    f"{name}: schedulers must be LRSchedulers, got schedulers[{index}] of type "
                    f"{type(scheduler).__name__}"
                )
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{name}: ReduceLROnPlateau needs a metric in every step, got it as "
                    f"schedulers[{index}]; step it beside this one"
                )
            if scheduler.optimizer is not (optimizer or schedulers[0].optimizer):
                raise ValueError(
                    f"{name}: all schedulers must have one optimizer, got another in "
                    f"schedulers[{index}]"
                )
        self.optimizer = optimizer or schedulers[0].optimizer
        self._schedulers = list(schedulers)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser; a list of the schedulers' states."""
        state = super().state_dict()
        return {**state, "_schedulers": [part.state_dict() for part in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        parts = self._schedulers
        super().load_state_dict(state_dict)
        self._schedulers = parts
        for part, own in zip(parts, state_dict["_schedulers"], strict=True):
            part.load_state_dict(own)


class SequentialLR(_Combined):
    """One scheduler after the other; scheduler i + 1 starts at milestone i."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._check(schedulers, checked_optimizer(self, optimizer))
        self._milestones = [integer("SequentialLR", "milestones", m) for m in milestones]
        if len(milestones) != len(schedulers) - 1 or self._milestones != sorted(self._milestones):
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedulers need {len(schedulers) - 1} "
                f"milestones in order, got milestones={list(milestones)}"
            )
        # The schedulers wrote their first rates when they were made: start over with the first.
        self.restart()
        self.last_epoch = last_epoch + 1

    def step(self) -> None:
        self.last_epoch += 1
        index = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[index]
        if index > 0 and self._milestones[index - 1] == self.last_epoch:
            scheduler.restart()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def begin(self) -> None:
        self.last_epoch = 0
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first.begin()
        self._last_lr = first.get_last_lr()


class ChainedScheduler(_Combined):
    """All schedulers step together; their factors multiply."""

    def __init__(
        self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None
    ) -> None:
        if optimizer is not None:
            checked_optimizer(self, optimizer)
        self._check(schedulers, optimizer)
        self._last_lr = self._scaled(1)

    def step(self) -> None:
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._scaled(1)

    def begin(self) -> None:
        for scheduler in self._schedulers:
            scheduler.begin()
        self._last_lr = self._scaled(1)
