"""Rates times a factor: a function's, a constant, steps, a line, a power."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...functional._arguments import integer, real
from ..optimizer import Optimizer
from .base import LRScheduler, for_each_group

Factor = Callable[[int], float]


class LambdaLR(LRScheduler):
    """initial rate * lr_lambda(epoch); one function, or one a group."""

    relative = False

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Factor | Sequence[Factor], last_epoch: int = -1
    ) -> None:
        self.lr_lambdas = for_each_group(self, optimizer, "lr_lambda", lr_lambda)
        for function in self.lr_lambdas:
            if not callable(function):
                raise TypeError(
                    f"{type(self).__name__}: lr_lambda must be a function of the epoch, "
                    f"got {type(function).__name__}"
                )
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * factor(self.last_epoch) for base, factor in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser and the functions."""
        return {key: value for key, value in super().state_dict().items() if key != "lr_lambdas"}


class MultiplicativeLR(LambdaLR):
    """rate * lr_lambda(epoch) from epoch 1 on."""

    relative = True

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return self._scaled(1)
        pairs = zip(self.optimizer.param_groups, self.lr_lambdas, strict=True)
        return [group["lr"] * factor(self.last_epoch) for group, factor in pairs]

    def restart(self) -> None:
        """Epoch 0 again, from the rates that are there, times lr_lambda(0) as in torch."""
        self.last_epoch = 0
        pairs = zip(self.optimizer.param_groups, self.lr_lambdas, strict=True)
        self._write([group["lr"] * factor(0) for group, factor in pairs])


class StepLR(LRScheduler):
    """rate * gamma every step_size epochs."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = integer("StepLR", "step_size", step_size, 1)
        self.gamma = real("StepLR", "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        due = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return self._scaled(self.gamma if due else 1)


class MultiStepLR(LRScheduler):
    """rate * gamma at each milestone."""

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        if isinstance(milestones, str) or not isinstance(milestones, Iterable):
            raise TypeError(
                f"MultiStepLR: milestones must be a list of epochs, got milestones={milestones!r}"
            )
        self.milestones = Counter(integer("MultiStepLR", "milestones", m) for m in milestones)
        self.gamma = real("MultiStepLR", "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._scaled(self.gamma ** self.milestones[self.last_epoch])


class ConstantLR(LRScheduler):
    """rate * factor for the first total_iters epochs."""

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.factor = real("ConstantLR", "factor", factor)
        if not 0 <= self.factor <= 1:
            raise ValueError(f"ConstantLR: factor must be from 0 to 1, got factor={factor}")
        self.total_iters = integer("ConstantLR", "total_iters", total_iters, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return self._scaled(self.factor)
        if self.last_epoch != self.total_iters:
            return self._scaled(1)
        return self._scaled(1 / self.factor) if self.factor else list(self.base_lrs)


class LinearLR(LRScheduler):
    """A factor that moves from start_factor to end_factor within total_iters epochs."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = real("LinearLR", "start_factor", start_factor)
        self.end_factor = real("LinearLR", "end_factor", end_factor)
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ValueError(
                "LinearLR: start_factor must be above 0, both factors at most 1, "
                f"got start_factor={start_factor}, end_factor={end_factor}"
            )
        self.total_iters = integer("LinearLR", "total_iters", total_iters, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return self._scaled(self.start_factor)
        if self.last_epoch > self.total_iters:
            return self._scaled(1)
        change = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (self.last_epoch - 1) * change
        return self._scaled(1 + change / before)


class ExponentialLR(LRScheduler):
    """rate * gamma every epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = real("ExponentialLR", "gamma", gamma)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return self._scaled(self.gamma if self.last_epoch else 1)


class PolynomialLR(LRScheduler):
    """(1 - epoch / total_iters)^power of the initial rate."""

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters = integer("PolynomialLR", "total_iters", total_iters, 0)
        self.power = real("PolynomialLR", "power", power)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        epoch, total = self.last_epoch, self.total_iters
        if epoch == 0 or epoch > total:
            return self._scaled(1)
        return self._scaled(((1 - epoch / total) / (1 - (epoch - 1) / total)) ** self.power)
