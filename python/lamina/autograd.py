"""Reverse-mode differentiation over plain arrays.

A `Function` is one differentiable operation: `forward` and `backward` are static methods that see
arrays only. `Function.apply` unwraps its Tensors, runs `forward`, wraps the results and, where a
gradient is wanted, records a `Node`. `backward` walks the nodes from the result to the leaves.

The order of the walk and of every sum of gradients follows from the shape of the graph alone, so
the same program gives the same bits. Gradients of gradients are not recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ContextDecorator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _C
from .arrays import buffer_of, is_array, is_floating, module_of

if TYPE_CHECKING:
    from .tensor import Tensor
else:
    Tensor: Any = None  # tensor.py, which imports this file, puts its class here


class _GradMode(threading.local):
    """Whether this thread records, and the values that the open blocks will restore."""

    def __init__(self) -> None:
        self.outer: list[bool] = []

    @property
    def enabled(self) -> bool:
        return _C.grad_enabled()

    @enabled.setter
    def enabled(self, value: bool) -> None:
        _C.set_grad_enabled(value)


_mode = _GradMode()


def is_grad_enabled() -> bool:
    """Whether operations on this thread are recorded for backward."""
    return _mode.enabled


def is_recorded(result: Any) -> bool:
    """Whether the result of an operation leads back to its arguments in backward."""
    return isinstance(result, Tensor) and result._requires_grad


class _GradBlock(ContextDecorator):
    enabled: bool

    def __enter__(self) -> None:
        _mode.outer.append(_mode.enabled)
        _mode.enabled = self.enabled

    def __exit__(self, *exception: object) -> None:
        _mode.enabled = _mode.outer.pop()


class no_grad(_GradBlock):
    """Records nothing inside `with no_grad():` or a function decorated by `@no_grad()`."""

    enabled = False


class enable_grad(_GradBlock):
    """Records again inside a `no_grad` block."""

    enabled = True


class set_grad_enabled(_GradBlock):
    """Sets the mode at once; as a context manager or decorator it sets it for the block only."""

    def __init__(self, mode: bool) -> None:
        self.enabled = bool(mode)
        self.before = _mode.enabled
        _mode.enabled = self.enabled

    def __enter__(self) -> None:
        super().__enter__()
        _mode.outer[-1] = self.before

    def __call__(self, function: Any) -> Any:
        _mode.enabled = self.before
        mode = self.enabled

        class block(_GradBlock):
            enabled = mode

        return block()(function)


class Version:
    """Counts the writes into one buffer; a tensor, its views and its detached copies share it."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Context:
    """What `forward` leaves for `backward`: saved arrays and any attribute it sets."""

    needs_input_grad: tuple[bool, ...] = ()
    saved: tuple[Any, ...] = ()
    non_differentiable: tuple[Any, ...] = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def save_for_backward(self, *arrays: Any) -> None:
        """Keeps arrays (or None) for `backward`, which reads them as `ctx.saved`."""
        self.saved = arrays

    def mark_non_differentiable(self, *arrays: Any) -> None:
        """Declares outputs that never carry a gradient, such as indices."""
        self.non_differentiable = arrays


class Node:
    """One recorded call. `edges` has a (source, output index) or None for each positional argument.

    A source is the Node that made the argument, or the leaf Tensor itself.
    """

    __slots__ = ("__weakref__", "ctx", "edges", "function", "hooks", "outputs", "versions")

    def __init__(
        self,
        function: type[Function],
        ctx: Context,
        edges: tuple[Edge | None, ...],
        versions: list[tuple[Version, int]],
    ) -> None:
        self.function = function
        self.ctx: Context | None = ctx
        self.edges = edges
        self.versions = versions
        self.outputs: list[tuple[tuple[int, ...], Any, bool, Any]] = []
        self.hooks: dict[int, dict[int, Callable[..., Any]]] = {}

    @property
    def name(self) -> str:
        return f"{self.function.__name__}Backward"

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def call_backward(self, gradients: list[Any]) -> tuple[Any, ...]:
        """The gradient of every positional argument, from those of the outputs."""
        if self.ctx is None:
            raise RuntimeError(
                f"backward: the graph of {self.function.__name__} was freed by an earlier "
                "backward; call that one with retain_graph=True, or run the forward again"
            )
        for version, count in self.versions:
            if version.count != count:
                raise RuntimeError(
                    f"backward: an array that {self.function.__name__} needs was written in "
                    f"place after it was used (version {version.count}, expected {count}); "
                    "write to a clone() instead"
                )
        filled = [
            module.zeros(shape, dtype) if gradient is None and differentiable else gradient
            for gradient, (shape, dtype, differentiable, module) in zip(
                gradients, self.outputs, strict=True
            )
        ]
        result = self.function.backward(self.ctx, *filled)
        if not isinstance(result, tuple):
            result = (result,)
        if len(result) != len(self.edges):
            raise RuntimeError(
                f"{self.function.__name__}.backward: must return one gradient for each of the "
                f"{len(self.edges)} positional arguments of apply, got {len(result)}"
            )
        return result


Edge = tuple["Node | Tensor", int]


class Function:
    """Base class of differentiable operations; subclasses are never instantiated.

    >>> class Square(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...
    ...     @staticmethod
    ...     def backward(ctx, grad_y):
    ...         (x,) = ctx.saved
    ...         return 2 * x * grad_y
    """

    # Whether `forward` leaves arithmetic to compiled kernels: then NumPy has nothing to warn of.
    kernels_only = False
    # Whether nobody else holds the gradients that `backward` returns, but for one it was given.
    gradients_are_new = False

    @staticmethod
    def forward(ctx: Context, *args: Any, **kwargs: Any) -> Any:
        """One array or a tuple of arrays from the arguments of `apply`, Tensors unwrapped."""
        raise NotImplementedError("a Function defines forward")

    @staticmethod
    def backward(ctx: Context, *grad_outputs: Any) -> Any:
        """One gradient (array or None) for each positional argument of `apply`."""
        raise NotImplementedError("a Function that is differentiated defines backward")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs the operation: Tensors out if any positional argument is one, else plain arrays."""
        for name, value in kwargs.items():
            if isinstance(value, Tensor):
                raise TypeError(
                    f"{cls.__name__}.apply: Tensors must be positional, got the keyword {name}"
                )
        recording = _mode.enabled
        tensors, arrays, needs = [], [], []
        for arg in args:
            if isinstance(arg, Tensor):
                tensors.append(arg)
                arrays.append(arg._data)
                needs.append(recording and arg._requires_grad)
            else:
                arrays.append(arg)
                needs.append(False)
        ctx = Context()
        ctx.needs_input_grad = tuple(needs)
        if cls.kernels_only:
            result = cls.forward(ctx, *arrays, **kwargs)
        else:
            with np.errstate(all="ignore"):  # Inf and NaN follow IEEE, without warnings
                result = cls.forward(ctx, *arrays, **kwargs)
        if not tensors:
            return result
        several = isinstance(result, tuple)
        outputs = [Tensor._wrap(array) for array in (result if several else (result,))]
        for output in outputs:
            output._share_version(tensors)
        if True in needs:
            edges = [a._edge() if need else None for a, need in zip(args, needs, strict=True)]
            node = Node(cls, ctx, tuple(edges), _versions(ctx.saved, tensors, outputs))
            marked = ctx.non_differentiable
            for index, output in enumerate(outputs):
                array = output._data
                differentiable = is_floating(array.dtype) and not (
                    marked and any(array is other for other in marked)
                )
                node.outputs.append((array.shape, array.dtype, differentiable, module_of(array)))
                if differentiable:
                    output._record(node, index)
        return tuple(outputs) if several else outputs[0]


def _versions(
    saved: tuple[Any, ...], inputs: list[Tensor], outputs: list[Tensor]
) -> list[tuple[Version, int]]:
    """The write counts of the saved arrays that show a tensor's memory, compared in backward."""
    if not saved:
        return []
    tensors = (*outputs, *inputs)
    owners = {id(tensor._data): tensor for tensor in tensors}
    buffers: dict[int, Tensor] | None = None
    cells = []
    for array in saved:
        owner = owners.get(id(array))
        if owner is None and is_array(array):
            if buffers is None:
                buffers = {id(buffer_of(tensor._data)): tensor for tensor in tensors}
            owner = buffers.get(id(buffer_of(array)))
        if owner is not None:
            cells.append(owner._writes())
    return [(cell, cell.count) for cell in cells]


def _topological_order(roots: Sequence[Node | Tensor]) -> list[Node | Tensor]:
    """Every reachable source, each before the sources of its arguments. Iterative: any depth."""
    postorder: list[Node | Tensor] = []
    seen: set[int] = set()
    for root in roots:
        if id(root) in seen:
            continue
        seen.add(id(root))
        stack: list[tuple[Node | Tensor, Iterator[Edge | None]]] = [(root, _edges(root))]
        while stack:
            source, edges = stack[-1]
            for edge in edges:
                if edge is not None and id(edge[0]) not in seen:
                    seen.add(id(edge[0]))
                    stack.append((edge[0], _edges(edge[0])))
                    break
            else:
                postorder.append(source)
                stack.pop()
    return postorder[::-1]


def _edges(source: Node | Tensor) -> Iterator[Edge | None]:
    return iter(source.edges if isinstance(source, Node) else ())


class _Sums:
    """Gradients on their way: one sum for each output of each source.

    A gradient array may be shared (an addition hands one array to both arguments), so the first
    sum makes a new array and only that one is added to in place.
    """

    def __init__(self) -> None:
        self.arrays: dict[tuple[int, int], Any] = {}
        self.owned: set[tuple[int, int]] = set()

    def add(self, source: Node | Tensor, index: int, gradient: Any, new: bool = False) -> None:
        """`new`: nobody else holds the array."""
        key = (id(source), index)
        if key not in self.arrays:
            self.arrays[key] = gradient
            if new:
                self.owned.add(key)
        elif key in self.owned:
            self.arrays[key] += gradient
        else:
            total = self.arrays[key] + gradient
            self.arrays[key] = module_of(gradient).asarray(total)
            self.owned.add(key)

    def take(
        self, source: Node | Tensor, index: int, hooks: dict[int, Callable[..., Any]] | None
    ) -> Any:
        """The finished sum, after the hooks; None where no gradient arrived."""
        gradient = self.arrays.pop((id(source), index), None)
        if gradient is None or not hooks:
            return gradient
        for hook in list(hooks.values()):
            replacement = hook(Tensor._wrap(gradient))
            if replacement is not None:
                array = replacement.data if isinstance(replacement, Tensor) else replacement
                gradient = _checked("register_hook", array, gradient.shape, gradient.dtype)
        return gradient


def _checked(op: str, gradient: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The gradient in the dtype of what it belongs to. Raises RuntimeError on another shape."""
    if not is_array(gradient):
        gradient = module_of(gradient).asarray(gradient)
    if gradient.shape != shape:
        raise RuntimeError(
            f"{op}: the gradient must have the shape of its input, got gradient.shape="
            f"{gradient.shape}, input.shape={shape}; sum over the broadcast dimensions"
        )
    return gradient if gradient.dtype == dtype else gradient.astype(dtype)


def _described(source: Node | Tensor, index: int) -> tuple[tuple[int, ...], Any]:
    if isinstance(source, Node):
        shape, dtype, _, _ = source.outputs[index]
        return shape, dtype
    return source.data.shape, source.data.dtype


def backward(
    tensors: Sequence[Tensor],
    gradients: Sequence[Any],
    *,
    retain_graph: bool = False,
    into: dict[int, Any] | None = None,
) -> None:
    """Adds the gradients of `tensors`, weighted by `gradients`, to the `.grad` of every leaf.

    With `into` (keyed by the id of a Tensor) no `.grad` changes: the sums of the tensors it names
    are stored there instead. What the nodes saved is freed unless `retain_graph`; nodes that saved
    nothing can be walked again.

    Raises RuntimeError for a graph that was freed, an array written since, or a wrong shape.
    """
    sums = _Sums()
    roots = []
    for tensor, gradient in zip(tensors, gradients, strict=True):
        source, index = tensor._edge()
        roots.append(source)
        sums.add(source, index, _checked("backward", gradient, *_described(source, index)))
    wanted: dict[tuple[int, int], list[int]] = {}
    for key, (source, index) in (into or {}).items():
        wanted.setdefault((id(source), index), []).append(key)

    with no_grad(), np.errstate(all="ignore"):
        for source in _topological_order(roots):
            if not isinstance(source, Node):
                hooks = source._hooks
                gradient = sums.take(source, 0, hooks)
                if gradient is None:
                    continue
                for key in wanted.get((id(source), 0), ()):
                    into[key] = gradient  # type: ignore[index]
                if into is None:
                    source._accumulate(gradient, not hooks and (id(source), 0) in sums.owned)
                continue
            arrived, arrived_ids = [], set()
            for index in range(len(source.outputs)):
                gradient = sums.take(source, index, source.hooks.get(index))
                for key in wanted.get((id(source), index), ()) if wanted else ():
                    into[key] = gradient  # type: ignore[index]
                arrived.append(gradient)
                if gradient is not None:
                    arrived_ids.add(id(gradient))
            if not arrived_ids:
                continue
            results = source.call_backward(arrived)
            new = source.function.gradients_are_new
            for edge, result in zip(source.edges, results, strict=True):
                if edge is None or result is None:
                    continue
                shape, dtype = _described(*edge)
                if type(result) is not np.ndarray or result.shape != shape or result.dtype != dtype:
                    result = _checked(f"{source.function.__name__}.backward", result, shape, dtype)
                sums.add(*edge, result, new and id(result) not in arrived_ids)
            if not retain_graph and source.ctx is not None and source.ctx.saved:
                source.ctx = None


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` for `inputs`, as in torch.autograd.grad; no `.grad` changes.

    Raises RuntimeError where an output or an input needs no gradient, or where an input was not
    used and `allow_unused` is false.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None:
        grad_outputs = [None] * len(outputs)
    elif isinstance(grad_outputs, Tensor) or is_array(grad_outputs):
        grad_outputs = [grad_outputs]
    seeds = [output._seed("grad", seed) for output, seed in zip(outputs, grad_outputs, strict=True)]
    for index, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise RuntimeError(
                f"grad: inputs[{index}] must require a gradient, got requires_grad=False; "
                "set requires_grad before the forward"
            )
    into: dict[int, Any] = {id(tensor): tensor._edge() for tensor in inputs}
    edges = dict(into)
    backward(outputs, seeds, retain_graph=retain_graph, into=into)
    found = [None if into[key] is edges[key] else into[key] for key in map(id, inputs)]
    if not allow_unused and any(gradient is None for gradient in found):
        unused = [index for index, gradient in enumerate(found) if gradient is None]
        raise RuntimeError(
            f"grad: every input must be used by the outputs, got unused inputs {unused}; "
            "pass allow_unused=True to get None for them"
        )
    return tuple(None if gradient is None else Tensor._wrap(gradient) for gradient in found)
