"""What optimisers share: parameter groups, state, `step` and `zero_grad`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..autograd import enable_grad
from ..tensor import Tensor


class Optimizer:
    """Subclasses define `update(array, grad, state, group)`, which changes the array in place."""

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        groups = list(params)
        if not groups:
            raise ValueError(f"{type(self).__name__}: params is empty")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[int, dict[str, Any]] = {}
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Adds parameters with options of their own. Raises TypeError for anything but Tensors."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"{type(self).__name__}: params must be Tensors, got {type(param).__name__}"
                )
        self.param_groups.append({**self.defaults, **group, "params": params})

    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad = Tensor(np.zeros_like(param.grad.data))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                grad = param.grad.data
                state = self.state.setdefault(id(param), {"step": 0})
                state["step"] += 1
                self.update(param.data, -grad if group.get("maximize") else grad, state, group)
        return loss

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define update()")


def check_options(name: str, **options: float) -> None:
    """ValueError for a negative option."""
    for option, value in options.items():
        if not value >= 0:
            raise ValueError(f"{name}: {option} must not be negative, got {option}={value}")
