"""Half a cosine, once or again and again (Loshchilov & Hutter 2017)."""

from __future__ import annotations

import math

from ...functional._arguments import integer, real
from ..optimizer import Optimizer
from .base import LRScheduler


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to eta_min within T_max epochs, and back."""

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = integer("CosineAnnealingLR", "T_max", T_max, 1)
        self.eta_min = real("CosineAnnealingLR", "eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        epoch, length, low = self.last_epoch, self.T_max, self.eta_min
        if epoch == 0:
            return self._scaled(1)
        groups = self.optimizer.param_groups
        if (epoch - 1 - length) % (2 * length) == 0:  # the rate is eta_min: leave it
            rise = (1 - math.cos(math.pi / length)) / 2
            return [
                group["lr"] + (base - low) * rise
                for base, group in zip(self.base_lrs, groups, strict=True)
            ]
        factor = (1 + math.cos(math.pi * epoch / length)) / (
            1 + math.cos(math.pi * (epoch - 1) / length)
        )
        return [factor * (group["lr"] - low) + low for group in groups]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the initial rate to eta_min, again after T_0, T_0 T_mult, ... epochs."""

    relative = False

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        name = "CosineAnnealingWarmRestarts"
        self.T_0 = integer(name, "T_0", T_0, 1)
        self.T_mult = integer(name, "T_mult", T_mult, 1)
        self.eta_min = real(name, "eta_min", eta_min)
        self._seek(last_epoch + 1)
        super().__init__(optimizer, last_epoch)

    def _seek(self, epoch: float) -> None:
        """T_cur epochs of a half cosine of T_i have passed."""
        self.T_cur, self.T_i = epoch, self.T_0
        while self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= self.T_mult

    def get_lr(self) -> list[float]:
        share = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Goes on by one epoch, or to `epoch`, which may be a fraction: epoch + batch / batches.

        Raises ValueError for a negative epoch.
        """
        if epoch is None:
            self.last_epoch += 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
        else:
            place = real("CosineAnnealingWarmRestarts.step", "epoch", epoch)
            if not 0 <= place < math.inf:
                raise ValueError(
                    "CosineAnnealingWarmRestarts.step: epoch must be finite and not negative, "
                    f"got epoch={epoch}"
                )
            self._seek(place)
            self.last_epoch = math.floor(place)
        self._write(self.get_lr())

    def begin(self) -> None:
        self.step(0)
