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

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: state}, "param_groups": [options with the indices of their params]}."""
        index: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                index.setdefault(id(param), len(index))
            groups.append({**group, "params": [index[id(param)] for param in group["params"]]})
        state = {index[key]: dict(value) for key, value in self.state.items() if key in index}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned; arrays are copied.

        Raises ValueError, before anything changes, unless the groups have as many parameters.
        """
        saved = state_dict["param_groups"]
        own_counts = [len(group["params"]) for group in self.param_groups]
        counts = [len(group["params"]) for group in saved]
        if own_counts != counts:
            raise ValueError(
                f"load_state_dict: {type(self).__name__} has groups of {own_counts} parameters, "
                f"got groups of {counts}"
            )
        places: dict[int, int] = {}
        for own, given in zip(self.param_groups, saved, strict=True):
            places.update(zip(given["params"], map(id, own["params"]), strict=True))
            own.update({key: value for key, value in given.items() if key != "params"})
        self.state = {
            places[index]: {
                key: value.copy() if isinstance(value, np.ndarray) else value
                for key, value in entry.items()
            }
            for index, entry in state_dict["state"].items()
        }

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for index, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            options = sorted((key, value) for key, value in group.items() if key != "params")
            lines += [f"    {key}: {value}" for key, value in options]
        return "\n".join([*lines, ")"])

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define update()")


def decayed(array: Any, grad: Any, group: dict[str, Any]) -> Any:
    """The gradient with the weight decay's term."""
    return grad + group["weight_decay"] * array if group["weight_decay"] else grad


def check_options(name: str, **options: float) -> None:
    """ValueError for a negative option."""
    for option, value in options.items():
        if not value >= 0:
            raise ValueError(f"{name}: {option} must not be negative, got {option}={value}")
