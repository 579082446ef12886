"""What optimisers share: parameter groups, state, `step` and `zero_grad`.

An optimiser is its options, their check, and `update` of one parameter. State and its keys are
torch's, so a state that torch saved can go on here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..arrays import is_array, module_of, to_device
from ..autograd import enable_grad, no_grad
from ..functional._arguments import real
from ..functional._update import Update, optimizer_steps
from ..tensor import Tensor

# Entries of a parameter's state that are one Python number; all others have its shape.
_NUMBERS = ("step", "eta", "mu", "mu_product")


class Optimizer:
    """Groups of parameters with options, one state for each parameter.

    Subclasses define `check(op, options)` and `update(array, grad, state, group)` of one parameter;
    `state["step"]` counts from 1.

    Raises TypeError for parameters that are not Tensors, ValueError for results of operations,
    for parameters given twice and for options out of range.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor | dict | set | str) or not isinstance(params, Iterable):
            raise TypeError(
                f"{name}: params must be a list of Tensors or of dicts, "
                f"got {type(params).__name__}; use module.parameters() or [tensor]"
            )
        groups = list(params)
        if not groups:
            raise ValueError(f"{name}: params must not be empty, got params=[]")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self.check(name, defaults)
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        for group in groups:
            self.add_param_group(group)

    def check(self, op: str, options: dict[str, Any]) -> None:
        """TypeError or ValueError for options that the method is not defined for."""

    def update(self, array: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
        """Changes the array and the state in place, or returns the `fused` update that will."""
        raise NotImplementedError(f"{type(self).__name__} must define update()")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds {"params": a Tensor or several, **options}; other options are the defaults."""
        name = type(self).__name__
        if not isinstance(param_group, dict):
            raise TypeError(
                f"{name}: a parameter group must be a dict, got {type(param_group).__name__}"
            )
        if "params" not in param_group:
            raise ValueError(
                f"{name}: a parameter group must have 'params', got keys={sorted(param_group)}"
            )
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        taken = {id(param) for group in self.param_groups for param in group["params"]}
        for index, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"{name}: params must be Tensors, got params[{index}] of type "
                    f"{type(param).__name__}"
                )
            if not param.is_leaf or not param.is_floating_point():
                raise ValueError(
                    f"{name}: params must be floating leaves, got params[{index}] with "
                    f"dtype={param.dtype}, grad_fn={param.grad_fn}; use detach()"
                )
            if id(param) in taken:
                raise ValueError(
                    f"{name}: every parameter must be given once, got params[{index}] of "
                    f"shape={param.shape} again"
                )
            taken.add(id(param))
        group = {**self.defaults, **param_group, "params": params}
        self.check(name, group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, or fills them with zeros."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad = Tensor(np.zeros_like(param.grad.data))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns the closure's loss.

        Raises ValueError for a parameter whose array is read-only.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        op = f"{type(self).__name__}.step"
        updates: list[Any] = []
        with no_grad(), np.errstate(all="ignore"):  # infinities and NaN stay in the parameters
            try:
                for group in self.param_groups:
                    self._collect(op, group, updates)
            finally:
                optimizer_steps(updates)
        return loss

    def _collect(self, op: str, group: dict[str, Any], updates: list[Any]) -> None:
        """Appends the updates of the group's parameters that have a gradient."""
        maximize = group.get("maximize")
        for param in group["params"]:
            gradient = param._grad
            if gradient is None:
                continue
            array = param._writable(op)
            state = self.state.get(param)
            if state is None:
                state = self.state[param] = {}
            state["step"] = state.get("step", 0) + 1
            grad = gradient._data
            if maximize:
                grad = module_of(grad).asarray(-grad)  # NumPy's scalars are no arrays
            update = self.update(array, grad, state, group)
            if update is not None:
                updates.append(update)

    def state_dict(self) -> dict[str, Any]:
        """{"state": {index: state}, "param_groups": [options with the indices of their params]}.

        Parameters are counted through all groups. The arrays are shared, not copied.
        """
        index: dict[Tensor, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                index[param] = len(index)
            groups.append({**group, "params": [index[param] for param in group["params"]]})
        state = {index[param]: dict(entry) for param, entry in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a copy of what `state_dict` returned, here or in torch.

        Raises ValueError, before anything changes, for a dict of another form, for groups of other
        sizes and for arrays of other shapes than their parameters.
        """
        op = f"{type(self).__name__}.load_state_dict"
        try:
            saved, entries = state_dict["param_groups"], state_dict["state"]
            counts = [len(group["params"]) for group in saved]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{op}: state_dict must have 'state' and 'param_groups' with 'params', got "
                f"{sorted(state_dict) if isinstance(state_dict, dict) else type(state_dict)}"
            ) from error
        own_counts = [len(group["params"]) for group in self.param_groups]
        if own_counts != counts:
            raise ValueError(
                f"{op}: the groups must have {own_counts} parameters, got {counts}; build the "
                "optimizer on the same parameters"
            )
        params: dict[int, Tensor] = {}
        groups = []
        for own, given in zip(self.param_groups, saved, strict=True):
            params.update(zip(given["params"], own["params"], strict=True))
            groups.append({**own, **given, "params": own["params"]})
        state = {}
        for index, entry in entries.items():
            if index not in params:
                raise ValueError(f"{op}: state must be of indices below {len(params)}, got {index}")
            param = params[index]
            state[param] = {k: _own(op, k, v, param) for k, v in entry.items() if v is not None}
        self.param_groups, self.state = groups, state

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for index, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            options = sorted((key, value) for key, value in group.items() if key != "params")
            lines += [f"    {key}: {value}" for key, value in options]
        return "\n".join([*lines, ")"])


def _own(op: str, key: str, value: Any, param: Tensor) -> Any:
    """A copy of one entry of a parameter's state, on its device and in its dtype."""
    if key in _NUMBERS:
        number = float(value)
        return int(number) if key == "step" else number
    array = value if is_array(value) else np.asarray(value)
    if array.shape != param.shape:
        raise ValueError(
            f"{op}: {key} must have the shape of its parameter, got {key}.shape={array.shape}, "
            f"shape={param.shape}"
        )
    here = to_device(op, array, param.device)
    return module_of(here).array(here, dtype=param.dtype)


def fused(
    rule: str,
    array: Any,
    grad: Any,
    states: list[Any],
    group: dict[str, Any],
    *coefficients: float,
) -> Update:
    """The whole update, with the group's weight decay, as one kernel (`optimizer_steps`)."""
    decay, keep = group.get("weight_decay", 0.0), 1.0
    if group.get("decoupled_weight_decay"):
        decay, keep = 0.0, 1 - group["lr"] * decay
    return rule, array, grad, states, coefficients, decay, keep


def arrays_of(state: dict[str, Any], like: Any, *keys: str) -> list[Any]:
    """The arrays of a state by their keys; those that are not there yet begin as zeros."""
    for key in keys:
        if key not in state:
            state[key] = np.zeros_like(like)
    return [state[key] for key in keys]


def at_least_zero(op: str, options: dict[str, Any], *names: str) -> None:
    """TypeError for an option that is no number, ValueError for a negative one or NaN."""
    for name in names:
        value = real(op, name, options[name])
        if not value >= 0:
            raise ValueError(f"{op}: {name} must not be negative, got {name}={value}")


def decay_rates(op: str, options: dict[str, Any]) -> None:
    """TypeError or ValueError unless betas are two numbers from 0 to below 1."""
    betas = options["betas"]
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"{op}: betas must be two numbers, got betas={betas!r}")
    if not all(0 <= real(op, "betas", beta) < 1 for beta in betas):
        raise ValueError(f"{op}: betas must be from 0 to below 1, got betas={betas}")
