"""Reverse-mode differentiation: `Function`, the tape it leaves behind, and the walk back.

A `Function` computes on plain arrays. `apply` unwraps its Tensor arguments, runs `forward`, and,
when gradients are wanted, links the results to a `Node` that remembers how to run `backward`. The
walk in `run_backward` visits nodes from the newest to the oldest, so gradients are summed in one
fixed order.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

_state = threading.local()
_sequence = itertools.count()


def is_grad_enabled() -> bool:
    """Whether operations on this thread are recorded."""
    return getattr(_state, "enabled", True)


class set_grad_enabled:
    """Switches recording on or off, at once and for a `with` block or a decorated function."""

    def __init__(self, mode: bool) -> None:
        self._before = is_grad_enabled()
        self._mode = bool(mode)
        _state.enabled = self._mode

    def __enter__(self) -> None:
        _state.enabled = self._mode

    def __exit__(self, *exc: object) -> None:
        _state.enabled = self._before


class _GradMode:
    """Context manager and decorator; unlike `set_grad_enabled` it acts on entry only."""

    mode: bool

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(is_grad_enabled())
        _state.enabled = self.mode

    def __exit__(self, *exc: object) -> None:
        _state.enabled = self._before.pop()

    def __call__(self, function: Callable) -> Callable:
        @wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return wrapped


class no_grad(_GradMode):
    """Operations inside are not recorded."""

    mode = False


class enable_grad(_GradMode):
    """Operations inside are recorded, also within `no_grad`."""

    mode = True


class Context:
    """What `forward` leaves for `backward`; any further attribute may be set on it."""

    needs_input_grad: tuple[bool, ...] = ()

    def __init__(self) -> None:
        self._saved: tuple[Any, ...] | None = ()
        self._non_differentiable: set[int] = set()

    def save_for_backward(self, *arrays: Any) -> None:
        """Keeps arrays until `backward` has run."""
        self._saved = arrays

    @property
    def saved(self) -> tuple[Any, ...]:
        """The arrays given to `save_for_backward`."""
        if self._saved is None:
            raise RuntimeError(
                "backward: the graph was already freed by an earlier backward(); "
                "pass retain_graph=True to the earlier call"
            )
        return self._saved

    def mark_non_differentiable(self, *arrays: Any) -> None:
        """Results (index arrays, say) that never carry gradients."""
        self._non_differentiable.update(map(id, arrays))


class Node:
    """One recorded call: where its inputs came from and how gradients flow back to them."""

    __slots__ = ("context", "function", "inputs", "outputs", "sequence")

    def __init__(self, function: type[Function], context: Context, inputs: list) -> None:
        self.function = function
        self.context = context
        # Per positional argument: None, or (producing Node, output index), or (leaf Tensor, -1).
        self.inputs = inputs
        self.outputs: list[tuple] = []  # (shape, dtype, module) of each result
        self.sequence = next(_sequence)

    @property
    def name(self) -> str:
        return self.function.__name__ + "Backward"

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Function:
    """Base class of a differentiable operation.

    Subclasses define static `forward(ctx, *args)` and `backward(ctx, *grad_outputs)`. Both see
    plain arrays, not Tensors. `forward` returns an array or a tuple of arrays; `backward` returns
    one gradient (an array, or None) per argument of `apply`.
    """

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        raise NotImplementedError("a Function must define forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        raise NotImplementedError("a Function must define backward(ctx, *grad_outputs)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Runs the operation. Tensors in give Tensors out; plain arrays give plain arrays."""
        from .tensor import Tensor

        arrays = tuple(arg.data if isinstance(arg, Tensor) else arg for arg in args)
        ctx = Context()
        recording = is_grad_enabled()
        ctx.needs_input_grad = tuple(
            recording and isinstance(arg, Tensor) and arg.requires_grad for arg in args
        )
        results = cls.forward(ctx, *arrays)
        if not any(isinstance(arg, Tensor) for arg in args):
            return results
        single = not isinstance(results, tuple)
        outputs = (results,) if single else results
        if not any(ctx.needs_input_grad):
            tensors = tuple(Tensor._wrap(array) for array in outputs)
        else:
            inputs = [
                arg._edge() if needed else None
                for arg, needed in zip(args, ctx.needs_input_grad, strict=True)
            ]
            node = Node(cls, ctx, inputs)
            node.outputs = [(array.shape, array.dtype) for array in outputs]
            tensors = tuple(
                Tensor._wrap(array)
                if id(array) in ctx._non_differentiable
                else Tensor._wrap(array, node, index)
                for index, array in enumerate(outputs)
            )
        return tensors[0] if single else tensors


def run_backward(root: Any, gradient: Any, retain_graph: bool = False) -> None:
    """Adds d(root)/d(leaf) * gradient to the `.grad` of every leaf Tensor under `root`."""
    from .tensor import Tensor

    if root._node is None:
        _deliver_to_leaf(root, gradient)
        return
    pending: dict[int, list] = {}  # node sequence -> gradients of its outputs
    heap: list[tuple[int, Node]] = []

    def receive(node: Node, index: int, grad: Any) -> None:
        slots = pending.get(node.sequence)
        if slots is None:
            slots = pending[node.sequence] = [None] * len(node.outputs)
            heapq.heappush(heap, (-node.sequence, node))
        slots[index] = grad if slots[index] is None else slots[index] + grad

    receive(root._node, root._output_index, gradient)
    while heap:
        node = heapq.heappop(heap)[1]
        grads = pending.pop(node.sequence)
        for index, (shape, dtype) in enumerate(node.outputs):
            if grads[index] is None:
                if np.issubdtype(dtype, np.floating):
                    grads[index] = np.zeros(shape, dtype)
                continue
            for hook in node.context.__dict__.get("hooks", {}).get(index, {}).values():
                grads[index] = _run_hook(hook, grads[index])
        with no_grad():
            results = node.function.backward(node.context, *grads)
        if not isinstance(results, tuple):
            results = (results,)
        if len(results) != len(node.inputs):
            raise RuntimeError(
                f"{node.name}: backward returned {len(results)} gradients, "
                f"forward took {len(node.inputs)} arguments"
            )
        if not retain_graph:
            node.context._saved = None
        for edge, grad in zip(node.inputs, results, strict=True):
            if edge is None or grad is None:
                continue
            target, index = edge
            if isinstance(target, Tensor):
                _deliver_to_leaf(target, grad)
            else:
                shape = target.outputs[index][0]
                if grad.shape != shape:
                    raise RuntimeError(
                        f"{node.name}: gradient has shape {grad.shape}, its input has {shape}"
                    )
                receive(target, index, grad)


def _run_hook(hook: Callable, grad: Any) -> Any:
    from .tensor import Tensor

    replaced = hook(Tensor._wrap(grad))
    if replaced is None:
        return grad
    return replaced.data if isinstance(replaced, Tensor) else replaced


def _deliver_to_leaf(leaf: Any, grad: Any) -> None:
    from .tensor import Tensor

    if grad.shape != leaf.shape:
        raise RuntimeError(f"backward: gradient has shape {grad.shape}, its leaf has {leaf.shape}")
    for hook in leaf._hooks.values():
        grad = _run_hook(hook, grad)
    if grad.dtype != leaf.dtype:
        grad = grad.astype(leaf.dtype)
    if leaf.grad is None:
        # A copy: the array may be a view of something that a later operation owns.
        leaf.grad = Tensor._wrap(grad.copy())
    else:
        leaf.grad = Tensor._wrap(leaf.grad.data + grad)
