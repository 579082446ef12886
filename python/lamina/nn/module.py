"""`Module`: parameters, buffers and sub-modules under names, as torch's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..tensor import Tensor
from .parameter import Parameter


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base class of layers. Subclasses set attributes in __init__ and define `forward`."""

    training: bool

    def __init__(self) -> None:
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _modules={},
            _non_persistent=set(),
            _forward_hooks={},
            _forward_pre_hooks={},
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for before in list(self._forward_pre_hooks.values()):
            changed = before(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for after in list(self._forward_hooks.values()):
            changed = after(self, args, result)
            result = result if changed is None else changed
        return result

    # Registration

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}: call super().__init__() before setting attributes"
            )
        kinds: tuple[tuple[dict, type], ...] = (
            (self._parameters, Parameter),
            (self._modules, Module),
        )
        for registry, kind in kinds:
            if isinstance(value, kind):
                if name not in registry:
                    self._forget(name)
                registry[name] = value  # a value that replaces another keeps its place
                return
            if name in registry and value is None:
                registry[name] = None
                return
        if name in self._buffers and (value is None or isinstance(value, Tensor)):
            self._buffers[name] = value
            return
        self._forget(name)
        self.__dict__[name] = value

    def __getattr__(self, name: str) -> Any:
        for registry in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(registry, ()):
                return self.__dict__[registry][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _forget(self, name: str) -> bool:
        registries = (self.__dict__, self._parameters, self._buffers, self._modules)
        held = [registry for registry in registries if name in registry]
        for registry in held:
            del registry[name]
        return bool(held)

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Adds a parameter, or a place for one."""
        if value is not None and not isinstance(value, Parameter):
            raise TypeError(
                f"register_parameter: {name} must be a Parameter, got {type(value).__name__}"
            )
        if name not in self._parameters:
            self._forget(name)
        self._parameters[name] = value

    def register_buffer(self, name: str, value: Tensor | None, persistent: bool = True) -> None:
        """Adds a Tensor that is state but is not trained; persistent ones are saved."""
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(
                f"register_buffer: {name} must be a Tensor or None, got {type(value).__name__}"
            )
        if name not in self._buffers:
            self._forget(name)
        self._buffers[name] = value
        if not persistent:
            self._non_persistent.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a sub-module under a name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"add_module: {name} must be a Module, got {type(module).__name__}")
        if name not in self._modules:
            self._forget(name)
        self._modules[name] = module

    register_module = add_module

    # Traversal

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each once, parents first."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            children = [(k, m) for k, m in module._modules.items() if m is not None]
            stack.extend((f"{name}.{k}" if name else k, m) for k, m in reversed(children))

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((name, module) for name, module in self._modules.items() if module is not None)

    def children(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def _named_members(
        self, registry: str, recurse: bool, prefix: str = ""
    ) -> Iterator[tuple[str, Tensor]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in getattr(module, registry).items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, with its dotted name."""
        return self._named_members("_parameters", recurse, prefix)  # type: ignore[return-value]

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (value for _, value in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        return self._named_members("_buffers", recurse, prefix)

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

    # Modes

    def train(self, mode: bool = True) -> Module:
        for module in self.modules():
            module.__dict__["training"] = bool(mode)
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

    def to(self, target: Any) -> Module:
        """Converts parameters and floating buffers to a dtype or device, in place."""
        is_device = isinstance(target, str) and target.split(":")[0] in ("cpu", "cuda")
        for module in self.modules():
            for registry in (module._parameters, module._buffers):
                for value in registry.values():
                    floating = value is not None and np.issubdtype(value.dtype, np.floating)
                    if value is not None and (is_device or floating):
                        value.data = value.detach().to(target).data
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

    def register_forward_hook(self, hook: Callable[..., Any]) -> Callable[[], None]:
        """Calls hook(module, args, result) after forward; returns a function that removes it."""
        return _register(self._forward_hooks, hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> Callable[[], None]:
        """Calls hook(module, args) before forward; returns a function that removes it."""
        return _register(self._forward_pre_hooks, hook)

    # State

    def state_dict(self, prefix: str = "") -> OrderedDict[str, np.ndarray]:
        """Name -> array of every parameter and persistent buffer, sharing memory with them."""
        state: OrderedDict[str, np.ndarray] = OrderedDict()
        for path, module in self.named_modules():
            base = prefix + (f"{path}." if path else "")
            for name, value in {**module._parameters, **module._buffers}.items():
                if value is not None and name not in module._non_persistent:
                    state[base + name] = value.data
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copies arrays into the parameters and buffers of those names; returns those left over.

        Everything is checked before anything is written. Raises RuntimeError listing missing and
        unexpected names (unless strict is False) and mismatched shapes.
        """
        own = self.state_dict()
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        problems = []
        if strict:
            problems += [f"missing: {name}" for name in missing]
            problems += [f"unexpected: {name}" for name in unexpected]
        arrays = {
            name: np.asarray(value.data if isinstance(value, Tensor) else value)
            for name, value in state.items()
            if name in own
        }
        problems += [
            f"shape of {name}: {array.shape} given, {own[name].shape} wanted"
            for name, array in arrays.items()
            if array.shape != own[name].shape
        ]
        if problems:
            raise RuntimeError(
                f"load_state_dict: {type(self).__name__} cannot take this state: "
                + "; ".join(problems)
            )
        for name, array in arrays.items():
            own[name][...] = array
        return IncompatibleKeys(missing, unexpected)

    # Representation

    def extra_repr(self) -> str:
        """The arguments shown in the module's repr."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, child in self.named_children():
            lines += (f"({name}): {child!r}").split("\n")
        head = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({head})"
        body = ([head] if head else []) + lines
        return f"{type(self).__name__}(\n  " + "\n  ".join(body) + "\n)"


def _register(hooks: dict[int, Callable], hook: Callable) -> Callable[[], None]:
    key = max(hooks, default=-1) + 1
    hooks[key] = hook

    def remove() -> None:
        hooks.pop(key, None)

    return remove
