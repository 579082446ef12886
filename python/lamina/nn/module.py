"""`Module`: parameters, buffers and sub-modules under names, as torch's."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from ..arrays import is_floating, kind_of, to_numpy
from ..autograd import no_grad
from ..tensor import RemovableHandle, Tensor
from .backward_hooks import WatchedCall
from .parameter import Parameter


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not (self.missing_keys or self.unexpected_keys):
            return "<All keys matched successfully>"
        return (
            f"IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


def _first_few(title: str, items: list[str], separator: str) -> str:
    """Of a message: the state of another network differs in every name."""
    rest = f" and {len(items) - 10} more" if len(items) > 10 else ""
    return f"{title}{separator.join(items[:10])}{rest}; " if items else ""


class Module:
    """Base class of layers. Subclasses set attributes in __init__ and define `forward`."""

    training: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Gives layers a constructor under their own name, which Python's TypeErrors say."""
        super().__init_subclass__(**kwargs)
        inherited: Any = cls.__init__
        if cls.__module__.startswith(f"{__package__}.") and "__init__" not in vars(cls):
            parts = (inherited.__name__, inherited.__defaults__, inherited.__closure__)
            own = FunctionType(inherited.__code__, inherited.__globals__, *parts)
            functools.update_wrapper(own, inherited)
            own.__kwdefaults__ = inherited.__kwdefaults__
            own.__qualname__ = f"{cls.__qualname__}.__init__"
            cls.__init__ = own  # type: ignore[method-assign]

    def __init__(self) -> None:
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _modules={},
            _non_persistent=set(),
            _forward_hooks={},
            _forward_pre_hooks={},
            _backward_hooks={},
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self._forward_pre_hooks or self._forward_hooks or self._backward_hooks):
            return self.forward(*args, **kwargs)
        for before in list(self._forward_pre_hooks.values()):
            changed = before(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        watched = WatchedCall(self) if self._backward_hooks else None
        if watched:
            args = watched.arguments(args)
        result = self.forward(*args, **kwargs)
        for after in list(self._forward_hooks.values()):
            changed = after(self, args, result)
            result = result if changed is None else changed
        return watched.result(result) if watched else result

    # Registration

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}: call super().__init__() before setting attributes"
            )
        kinds: tuple[tuple[dict, type], ...] = (
            (self._parameters, Parameter),
            (self._modules, Module),
            (self._buffers, Tensor),
        )
        for registry, kind in kinds:
            if isinstance(value, kind) and (name in registry or kind is not Tensor):
                if name not in registry:
                    self._forget(name)
                registry[name] = value  # a value that replaces another keeps its place
                return
        for registry, kind in kinds:
            if name in registry:
                if value is not None:  # it would drop out of the state without a word
                    raise TypeError(
                        f"{type(self).__name__}: {name} must be a {kind.__name__} or None, got "
                        f"{type(value).__name__}; assign to {name}.data, or delete {name} first"
                    )
                registry[name] = None
                return
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        held = self.__dict__
        if "_parameters" in held:
            for registry in (held["_parameters"], held["_buffers"], held["_modules"]):
                if name in registry:
                    return registry[name]
        text = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(text, name=name, obj=self)  # with them Python suggests a name

    def __dir__(self) -> list[str]:
        registries = self._parameters, self._buffers, self._modules
        return [*super().__dir__(), *(name for registry in registries for name in registry)]

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _forget(self, name: str) -> bool:
        registries = (self.__dict__, self._parameters, self._buffers, self._modules)
        held = [registry for registry in registries if name in registry]
        for registry in held:
            del registry[name]
        return bool(held)

    def _check_name(self, method: str, name: str, registry: Mapping[str, Any]) -> None:
        """Names are parts of dotted paths, and may not hide an attribute."""
        if not isinstance(name, str):
            raise TypeError(f"{method}: name must be a string, got name={name!r}")
        if not name or "." in name:
            raise ValueError(f"{method}: name must not be empty or contain '.', got name={name!r}")
        if name not in registry and hasattr(self, name):
            raise ValueError(
                f"{method}: {type(self).__name__} already has an attribute of this name, "
                f"got name={name!r}"
            )

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Adds a parameter, or a place for one."""
        self._check_name("register_parameter", name, self._parameters)
        if value is not None and not isinstance(value, Parameter):
            raise TypeError(
                f"register_parameter: {name} must be a Parameter, got {type(value).__name__}"
            )
        self._parameters[name] = value

    def register_buffer(self, name: str, value: Tensor | None, persistent: bool = True) -> None:
        """Adds a Tensor that is state but is not trained; persistent ones are saved."""
        self._check_name("register_buffer", name, self._buffers)
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(
                f"register_buffer: {name} must be a Tensor or None, got {type(value).__name__}"
            )
        self._buffers[name] = value
        (self._non_persistent.discard if persistent else self._non_persistent.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a sub-module under a name."""
        self._check_name("add_module", name, self._modules)
        if module is not None and not isinstance(module, Module):
            if isinstance(module, type):
                got = f"the class {module.__name__}; call it: {module.__name__}(...)"
            else:
                got = kind_of(module) + "; unpack it: *modules" * isinstance(module, list)
            raise TypeError(f"{type(self).__name__}: module {name} must be a Module, got {got}")
        self._modules[name] = module

    register_module = add_module

    # Traversal

    def named_modules(
        self, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it, parents first; shared ones once, or under every name."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if remove_duplicate and id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            children = [(k, m) for k, m in module._modules.items() if m is not None]
            stack.extend((f"{name}.{k}" if name else k, m) for k, m in reversed(children))

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct sub-modules, shared ones once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def _named_members(
        self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in getattr(module, registry).items():
                if value is not None and not (remove_duplicate and id(value) in seen):
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name; shared ones once, or under every name."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (value for _, value in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Every buffer with its dotted name; shared ones once, or under every name."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (value for _, value in self.named_buffers(recurse=recurse))

    def get_submodule(self, path: str) -> Module:
        """The module under a dotted name."""
        module: Module = self
        for name in path.split(".") if path else ():
            found = module._modules.get(name)
            if found is None:
                raise AttributeError(f"{type(module).__name__} has no sub-module {name!r}")
            module = found
        return module

    def get_parameter(self, path: str) -> Parameter:
        """The parameter under a dotted name."""
        return self._member("_parameters", "parameter", path)

    def get_buffer(self, path: str) -> Tensor:
        """The buffer under a dotted name."""
        return self._member("_buffers", "buffer", path)

    def _member(self, registry: str, kind: str, path: str) -> Any:
        *parents, name = path.split(".")
        module = self.get_submodule(".".join(parents))
        value = getattr(module, registry).get(name)
        if value is None:
            raise AttributeError(f"{type(module).__name__} has no {kind} {name!r}")
        return value

    # Modes

    def train(self, mode: bool = True) -> Module:
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be True or False, got mode={mode!r}")
        for module in self.modules():
            module.__dict__["training"] = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad = Tensor(np.zeros_like(parameter.grad.data))

    def apply(self, function: Callable[[Module], Any]) -> Module:
        """Calls function on every module, children first."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def to(self, *target: Any, dtype: Any = None, device: Any = None) -> Module:
        """Converts parameters, their gradients and buffers to a dtype or device, in place.

        A dtype applies to floating arrays only. Arguments as Tensor.to; TypeError for a dtype
        without gradients.
        """
        wanted = Tensor(np.zeros(0, np.float32)).to(*target, dtype=dtype, device=device)
        if not is_floating(wanted.dtype):
            raise TypeError(f"to: a module's dtype must be floating, got dtype={wanted.dtype}")
        for module in self.modules():
            for value in (*module._parameters.values(), *module._buffers.values()):
                for held in (value, value.grad if value is not None else None):
                    if held is None:
                        continue
                    if is_floating(held.dtype):
                        held.data = held.detach().to(*target, dtype=dtype, device=device).data
                    else:
                        held.data = held.detach().to(device=wanted.device).data
        return self

    def cpu(self) -> Module:
        return self.to("cpu")

    def cuda(self) -> Module:
        return self.to("cuda")

    def float(self) -> Module:
        return self.to(np.float32)

    def double(self) -> Module:
        return self.to(np.float64)

    # Hooks

    def register_forward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls hook(module, args, result) after forward; what it returns replaces the result."""
        return _register(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls hook(module, args) before forward; what it returns replaces the arguments."""
        return _register(self._forward_pre_hooks, hook)

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls hook(module, grad_input, grad_output) in backward, once both are known.

        Both are tuples, of a gradient for each positional argument of the call and each result,
        None for what is no recorded Tensor, zeros where no gradient arrives. What the hook returns
        replaces grad_input.
        """
        return _register(self._backward_hooks, hook)

    # State

    def state_dict(self, prefix: str = "") -> OrderedDict[str, np.ndarray]:
        """Name -> array of every parameter and persistent buffer, sharing memory with them.

        What modules share appears under every name.
        """
        return OrderedDict((prefix + name, value.data) for name, value in self._kept().items())

    def _kept(self) -> dict[str, Tensor]:
        """What the state consists of, by the names in it."""
        return {
            f"{path}.{name}" if path else name: value
            for path, module in self.named_modules(remove_duplicate=False)
            for name, value in {**module._parameters, **module._buffers}.items()
            if value is not None and name not in module._non_persistent
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copies arrays into the parameters and buffers of those names; returns those left over.

        Everything is checked before anything is written. Raises RuntimeError listing missing and
        unexpected names (unless strict is False), mismatched shapes and dtypes.
        """
        if not isinstance(state, Mapping):
            raise TypeError(
                "load_state_dict: state must be a mapping of names to arrays, "
                f"got {type(state).__name__}"
            )
        own = self._kept()
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        arrays = {
            name: to_numpy(value.data if isinstance(value, Tensor) else value)
            for name, value in state.items()
            if name in own
        }
        shapes = [
            f"shape of {name}: {array.shape} given, {own[name].shape} wanted"
            for name, array in arrays.items()
            if array.shape != own[name].shape
        ]
        dtypes = [
            f"dtype of {name}: {array.dtype} given, a real number wanted"
            for name, array in arrays.items()
            if array.dtype.kind not in "fiub"
        ]
        problems = _first_few("missing: ", missing, ", ") if strict else ""
        problems += _first_few("unexpected: ", unexpected, ", ") if strict else ""
        problems += _first_few("", shapes, "; ") + _first_few("", dtypes, "; ")
        if problems:
            raise RuntimeError(
                f"load_state_dict: {type(self).__name__} cannot take this state: "
                + problems.removesuffix("; ")
            )
        with no_grad():
            for name, array in arrays.items():
                own[name].copy_(array)  # a backward that needs what was there refuses
        return IncompatibleKeys(missing, unexpected)

    # Representation

    def extra_repr(self) -> str:
        """The arguments shown in the module's repr."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, child in self._modules.items():
            lines += (f"({name}): {child!r}").split("\n")
        head = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({head})"
        body = ([head] if head else []) + lines
        return f"{type(self).__name__}(\n  " + "\n  ".join(body) + "\n)"


def is_plain(module: Module) -> bool:
    """Whether nobody sees what goes into the module and comes out of it: it has no hooks."""
    return not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _register(hooks: dict[int, Callable], hook: Callable) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.key] = hook
    return handle
