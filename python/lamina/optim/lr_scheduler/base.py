"""What the schedules share: epochs, the writing of rates, and state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..optimizer import Optimizer


class LRScheduler:
    """Subclasses define `get_lr()`: the rates of `self.last_epoch`, one for each group.

    A schedule is `relative` if `get_lr()` multiplies the rates that are there, so that several of
    them chain; otherwise it computes them from `self.base_lrs`.

    Raises TypeError for anything but an Optimizer, KeyError where it should resume at `last_epoch`
    but a group has no 'initial_lr'.
    """

    relative = True

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = checked_optimizer(self, optimizer)
        for group in optimizer.param_groups:
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"{type(self).__name__}: every group must have 'initial_lr' to resume, got "
                    f"last_epoch={last_epoch}; load the optimizer's state first"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        # The loaded rates of a relative schedule are already those of the epoch it resumes at.
        resumed = self.last_epoch > 0 and self.relative
        self._write(self._scaled(1) if resumed else self.get_lr())

    def get_lr(self) -> list[float]:
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")

    def step(self) -> None:
        """Goes on by one epoch and writes the rates."""
        self.last_epoch += 1
        self._write(self.get_lr())

    def begin(self) -> None:
        """Epoch 0 again, from the rates that are there."""
        self.last_epoch = 0
        self._write(self.get_lr())

    def restart(self) -> None:
        """Epoch 0 again, from the initial rates."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self.begin()

    def get_last_lr(self) -> list[float]:
        """The rates written last."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser and functions."""
        return {
            key: value
            for key, value in self.__dict__.items()
            if key != "optimizer" and not callable(value)
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned. Raises ValueError for that of another schedule."""
        own = self.state_dict().keys()
        if not isinstance(state_dict, dict) or not own <= state_dict.keys():
            got = sorted(state_dict) if isinstance(state_dict, dict) else type(state_dict).__name__
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: state_dict must have {sorted(own)}, "
                f"got {got}"
            )
        self.__dict__.update(state_dict)

    def _write(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = list(rates)

    def _scaled(self, factor: float) -> list[float]:
        return [group["lr"] * factor for group in self.optimizer.param_groups]


def checked_optimizer(scheduler: Any, optimizer: Any) -> Optimizer:
    """The optimizer. TypeError for anything else."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"{type(scheduler).__name__}: optimizer must be an Optimizer, "
            f"got {type(optimizer).__name__}"
        )
    return optimizer


def for_each_group(scheduler: Any, optimizer: Any, name: str, value: Any) -> list[Any]:
    """One value a group, from one value or as many as groups. ValueError for another number."""
    groups = len(checked_optimizer(scheduler, optimizer).param_groups)
    if not isinstance(value, list | tuple):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(
            f"{type(scheduler).__name__}: {name} must be one value or {groups}, one a group, "
            f"got {len(value)}"
        )
    return list(value)
