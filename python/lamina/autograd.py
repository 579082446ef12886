"""Reverse-mode differentiation over plain arrays.

A `Function` is one differentiable operation: `forward` and `backward` are static methods that see
arrays only. `Function.apply` unwraps its Tensors, runs `forward`, wraps the results and, where a
gradient is wanted, records a `Node`. `backward` walks the nodes from the result to the leaves.
Both are compiled (csrc/bindings/apply.cpp, backward.cpp); here are the classes that they fill, and
what they leave to Python.

The order of the walk and of every sum of gradients follows from the shape of the graph alone, so
the same program gives the same bits. Gradients of gradients are not recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from functools import wraps
from inspect import isgeneratorfunction
from typing import TYPE_CHECKING, Any

from . import _C
from .arrays import asarray, is_array, module_of
from .arrays import is_floating as is_floating  # for csrc/bindings/graph.cpp

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
    return _C.grad_enabled()


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

    def __call__(self, function: Any) -> Any:
        """The function inside the block; a generator is inside whenever it runs."""
        if not isgeneratorfunction(function):
            return super().__call__(function)

        @wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            resume, value = generator.send, None
            while True:
                try:
                    with self:
                        result = resume(value)
                except StopIteration as end:
                    return end.value
                try:
                    resume, value = generator.send, (yield result)
                except BaseException as error:  # GeneratorExit, too: it ends the generator
                    resume, value = generator.throw, error

        return steps


class _PlainBlock(_GradBlock):
    def __new__(cls, function: Any = None) -> Any:
        """The block, or as the decorator `@no_grad` the function inside it."""
        return super().__new__(cls) if function is None else cls()(function)


class no_grad(_PlainBlock):
    """Records nothing inside `with no_grad():` or a function decorated by `@no_grad()`."""

    enabled = False


class enable_grad(_PlainBlock):
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

    __slots__ = ("__dict__", "needs_input_grad", "non_differentiable", "saved")

    needs_input_grad: tuple[bool, ...]
    saved: tuple[Any, ...]
    non_differentiable: tuple[Any, ...]

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
    """One recorded call: what `apply` or a known call (csrc/bindings/calls.h) leaves for backward.

    edges: (source, output index) or None for each positional argument; a source is the Node that
    made the argument, or the leaf Tensor itself.
    outputs: (shape, dtype, differentiable, array library) of each.
    versions: (Version, its count, ...) of the saved arrays that show a tensor's memory.
    """

    __slots__ = ("__weakref__", "ctx", "edges", "function", "hooks", "outputs", "versions")

    function: type[Function]
    ctx: Any  # a Context or, of a known call, what stands for it; None once freed
    edges: tuple[Edge | None, ...]
    outputs: tuple[tuple[tuple[int, ...], Any, bool, Any], ...]
    versions: tuple[Any, ...]
    hooks: dict[int, dict[int, Callable[..., Any]]] | None

    @property
    def name(self) -> str:
        return f"{self.function.__name__}Backward"

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def hooks_of(self, index: int) -> dict[int, Callable[..., Any]]:
        """The hooks on the gradient of an output, to add to."""
        if self.hooks is None:
            self.hooks = {}
        return self.hooks.setdefault(index, {})

    def refuse(self) -> None:
        """RuntimeError for a graph that was freed or an array that was written since."""
        if self.ctx is None:
            raise RuntimeError(
                f"backward: the graph of {self.function.__name__} was freed by an earlier "
                "backward; call that one with retain_graph=True, or run the forward again"
            )
        for version, count in zip(self.versions[::2], self.versions[1::2], strict=True):
            if version.count != count:
                raise RuntimeError(
                    f"backward: an array that {self.function.__name__} needs was written in "
                    f"place after it was used (version {version.count}, expected {count}); "
                    "write to a clone() instead"
                )

    def refuse_results(self, count: int) -> None:
        """RuntimeError for `backward` of another number of gradients than there are arguments."""
        raise RuntimeError(
            f"{self.function.__name__}.backward: must return one gradient for each of the "
            f"{len(self.edges)} positional arguments of apply, got {count}"
        )


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

    # Whether `forward` has no arithmetic outside of compiled kernels: NumPy cannot warn of it then.
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

    if TYPE_CHECKING:

        @classmethod
        def apply(cls, *args: Any, **kwargs: Any) -> Any:
            """Runs the operation: Tensors out if any positional argument is one, else arrays."""

    else:
        apply = classmethod(_C.apply)


# What the compiled walk leaves to Python because it is rare.


def _refuse_keyword(function: type[Function], name: str) -> None:
    raise TypeError(
        f"{function.__name__}.apply: Tensors must be positional, got the keyword {name}"
    )


def _added(a: Any, b: Any) -> Any:
    return module_of(b).asarray(a + b)


def _zeros(output: tuple[tuple[int, ...], Any, bool, Any]) -> Any:
    shape, dtype, _, module = output
    return module.zeros(shape, dtype)


def _as_kernels_read(gradient: Any) -> Any:
    return asarray("backward", "gradient", gradient)


def _after_hooks(gradient: Any, hooks: dict[int, Callable[..., Any]]) -> Any:
    for hook in list(hooks.values()):
        replacement = hook(Tensor._wrap(gradient))
        if replacement is not None:
            array = replacement.data if isinstance(replacement, Tensor) else replacement
            gradient = _checked("register_hook", array, gradient.shape, gradient.dtype)
    return gradient


def _fitting(function: type[Function], edge: Edge, gradient: Any) -> Any:
    return _checked(f"{function.__name__}.backward", gradient, *_described(*edge))


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


def _seed(op: str, tensor: Tensor, gradient: Any) -> Any:
    return _checked(op, tensor._seed(op, gradient), *_described(*tensor._edge()))


def backward(
    tensors: Sequence[Tensor], gradients: Sequence[Any], *, retain_graph: bool = False
) -> None:
    """Adds the gradients of `tensors`, weighted by `gradients`, to the `.grad` of every leaf.

    What the nodes saved is freed unless `retain_graph`; nodes that saved nothing can be walked
    again.

    Raises RuntimeError for a graph that was freed or an array written since, ValueError for a
    gradient of another shape.
    """
    seeds = _one_each("backward", tensors, gradients)
    _C.backward("backward", tuple(tensors), seeds, None, retain_graph)


def _one_each(op: str, tensors: Sequence[Tensor], gradients: Sequence[Any]) -> tuple[Any, ...]:
    if len(gradients) != len(tensors):
        raise ValueError(
            f"{op}: there must be one gradient for each tensor, got {len(gradients)} for "
            f"{len(tensors)}"
        )
    return tuple(gradients)


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
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if grad_outputs is None:
        grad_outputs = (None,) * len(outputs)
    elif isinstance(grad_outputs, Tensor) or is_array(grad_outputs):
        grad_outputs = (grad_outputs,)
    for index, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise RuntimeError(
                f"grad: inputs[{index}] must require a gradient, got requires_grad=False; "
                "set requires_grad before the forward"
            )
    seeds = _one_each("grad", outputs, grad_outputs)
    found = _C.backward("grad", outputs, seeds, inputs, retain_graph)
    if not allow_unused and any(gradient is None for gradient in found):
        unused = [index for index, gradient in enumerate(found) if gradient is None]
        raise RuntimeError(
            f"grad: every input must be used by the outputs, got unused inputs {unused}; "
            "pass allow_unused=True to get None for them"
        )
    return found
