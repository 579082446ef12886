"""Hooks on the gradients of a module: what `Module.register_full_backward_hook` needs in a call."""

from __future__ import annotations

from typing import Any

from ..autograd import Function, is_grad_enabled, is_recorded
from ..tensor import Tensor


class Pass(Function):
    """Its arguments; `seen` is called with their gradients on the way back and returns them."""

    @staticmethod
    def forward(ctx: Any, *arrays: Any, seen: Any) -> Any:
        ctx.seen = seen
        return arrays

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.seen(gradients)


class WatchedCall:
    """One call of a module with backward hooks, which run when its gradients are known."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._inputs: list[int] = []  # the places of the recorded arguments
        self._grad_output: tuple[Any, ...] = ()

    def arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self._count, self._inputs = len(args), _recorded(args)
        return _passed(args, self._inputs, self._leave)

    def result(self, result: Any) -> Any:
        results = result if isinstance(result, tuple) else (result,)
        places = _recorded(results)

        def enter(gradients: tuple[Any, ...]) -> tuple[Any, ...]:
            self._grad_output = _at(places, gradients, len(results))
            if not self._inputs:
                self._run((None,) * self._count)
            return gradients

        passed = _passed(results, places, enter)
        return passed if isinstance(result, tuple) else passed[0]

    def _leave(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        grad_input = self._run(_at(self._inputs, gradients, self._count))
        return tuple(_array(grad_input[place]) for place in self._inputs)

    def _run(self, grad_input: tuple[Any, ...]) -> tuple[Any, ...]:
        for hook in list(self._module._backward_hooks.values()):
            changed = hook(self._module, grad_input, self._grad_output)
            if changed is None:
                continue
            changed = changed if isinstance(changed, tuple) else (changed,)
            if len(changed) != len(grad_input):
                raise RuntimeError(
                    "register_full_backward_hook: the hook must return as many gradients as there "
                    f"are arguments, {len(grad_input)}, got {len(changed)}"
                )
            grad_input = changed
        return grad_input


def _recorded(values: tuple[Any, ...]) -> list[int]:
    """The places of the values through which gradients flow."""
    return [i for i, value in enumerate(values) if is_grad_enabled() and is_recorded(value)]


def _passed(values: tuple[Any, ...], places: list[int], seen: Any) -> tuple[Any, ...]:
    """The values, those at the places by way of `Pass`."""
    if not places:
        return values
    passed = list(values)
    results = Pass.apply(*(values[i] for i in places), seen=seen)
    for place, tensor in zip(places, results, strict=True):
        passed[place] = tensor
    return tuple(passed)


def _at(places: list[int], gradients: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """The gradients as Tensors at their places, None elsewhere."""
    found: list[Any] = [None] * count
    for place, gradient in zip(places, gradients, strict=True):
        found[place] = None if gradient is None else Tensor._wrap(gradient)
    return tuple(found)


def _array(gradient: Any) -> Any:
    return gradient.data if isinstance(gradient, Tensor) else gradient
