"""Modules and parameters under indices or names, and the layers that only reshape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from ..arrays import is_array
from ..functional._arguments import integer, normal_axis
from ..functional.distance import on_tensors
from ..tensor import Tensor
from .module import Module
from .normalization import taken_in
from .parameter import Parameter

__all__ = [
    "Flatten",
    "Identity",
    "ModuleDict",
    "ModuleList",
    "ParameterDict",
    "ParameterList",
    "Sequential",
    "Unflatten",
]


class _Indexed(Module):
    """Sub-modules named 0, 1, 2, ... that behave like a list; one may appear several times."""

    def _replace_all(self, modules: Iterable[Module]) -> None:
        modules = list(modules)
        self._modules.clear()
        for index, module in enumerate(modules):
            self.add_module(str(index), module)

    def _position(self, index: Any) -> int:
        """A possibly negative index as one from 0. IndexError beyond the ends."""
        name, end = type(self).__name__, len(self)
        position = integer(name, "index", index)
        if not -end <= position < end:
            raise IndexError(
                f"{name}: index must be that of one of {end} modules, got index={position}"
            )
        return position % end

    def _name(self, index: Any) -> str:
        return list(self._modules)[self._position(index)]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))

    def __reversed__(self) -> Iterator[Module]:
        return iter(list(self._modules.values())[::-1])

    def __contains__(self, module: object) -> bool:
        return any(module is other for other in self)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])  # type: ignore[call-arg]
        return self._modules[self._name(index)]

    def __setitem__(self, index: Any, module: Module) -> None:
        self.add_module(self._name(index), module)

    def __delitem__(self, index: Any) -> None:
        modules = list(self)
        if isinstance(index, slice):
            del modules[index]
        else:
            del modules[self._position(index)]
        self._replace_all(modules)

    def __add__(self, other: Iterable[Module]) -> Any:
        return type(self)([*self, *other])  # type: ignore[call-arg]

    def __iadd__(self, other: Iterable[Module]) -> Any:
        return self.extend(other)

    def append(self, module: Module) -> Any:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Adds modules at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Adds a module before the one at `index`, or at the end. IndexError beyond it."""
        modules = list(self)
        at_end = index == len(self)
        modules.insert(index if at_end else self._position(index), module)
        self._replace_all(modules)
        return self

    def pop(self, index: int = -1) -> Module:
        """Removes a module and returns it."""
        module = self[index]
        del self[index]
        return module


class Sequential(_Indexed):
    """Calls its modules one after the other; takes them one by one or as one mapping of names."""

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self._replace_all(modules)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):  # a part keeps its names
            return Sequential(dict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def __add__(self, other: Iterable[Module]) -> Sequential:
        return Sequential(*self, *other)

    def __mul__(self, times: int) -> Sequential:
        """The same modules `times` times over."""
        return Sequential(*list(self) * integer("Sequential", "times", times, 1))

    __rmul__ = __mul__

    def __imul__(self, times: int) -> Sequential:
        return self.extend(list(self) * (integer("Sequential", "times", times, 1) - 1))

    def forward(self, input: Any) -> Any:
        modules = list(self._modules.values())
        while modules:
            module = modules.pop(0)
            if modules and (activation := taken_in(module, modules[0])) is not None:
                input = module.normalised(input, activation)
                del modules[0]
            else:
                input = module(input)
        return input


class ModuleList(_Indexed):
    """A list whose modules are registered."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())

    def __repr__(self) -> str:
        """Neighbours of equal text are shown once, with their range and number."""
        lines, first = [], 0
        for text, group in groupby(repr(module) for module in self):
            count = len(list(group))
            name = f"({first}): " if count == 1 else f"({first}-{first + count - 1}): {count} x "
            lines += (name + text).split("\n")
            first += count
        if not lines:
            return "ModuleList()"
        return "ModuleList(\n  " + "\n  ".join(lines) + "\n)"


def _pairs(owner: str, mapping: Any) -> list[tuple[str, Any]]:
    """The items of a mapping or of an iterable of (name, value) pairs."""
    if isinstance(mapping, Mapping | ModuleDict | ParameterDict):
        return list(mapping.items())
    try:
        return [(name, value) for name, value in mapping]
    except (TypeError, ValueError):
        raise TypeError(
            f"{owner}: takes a mapping or (name, value) pairs, got {type(mapping).__name__}"
        ) from None


class ModuleDict(Module):
    """A dictionary whose modules are registered."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules if modules is not None else {})

    def update(self, modules: Any) -> None:
        """Adds the modules of a mapping or of (name, module) pairs."""
        for name, module in _pairs("ModuleDict", modules):
            self[name] = module

    def clear(self) -> None:
        """Removes all modules."""
        self._modules.clear()

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self.add_module(name, module)

    def __delitem__(self, name: str) -> None:
        del self._modules[name]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Module]]:
        """(name, module) pairs."""
        return self._modules.items()

    def pop(self, name: str) -> Module:
        """Removes a module and returns it."""
        return self._modules.pop(name)


def _parameter(value: Any) -> Parameter:
    """Parameters stay themselves; Tensors and arrays become parameters."""
    if isinstance(value, Parameter):
        return value
    array = value.data if isinstance(value, Tensor) else value
    return Parameter(array if is_array(array) else np.asarray(array))


def _described(name: Any, parameter: Parameter) -> str:
    size = "x".join(map(str, parameter.shape))
    return f"  ({name}): Parameter containing: [lamina.{parameter.data.dtype} of size {size}]"


class ParameterList(Module):
    """A list whose parameters are registered."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self.extend(values or ())

    def append(self, value: Any) -> ParameterList:
        """Adds a parameter at the end; Tensors and arrays become parameters."""
        self.register_parameter(str(len(self)), _parameter(value))
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Adds parameters at the end."""
        for value in values:
            self.append(value)
        return self

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return iter(list(self._parameters.values()))

    def __getitem__(self, index: Any) -> Any:
        values = list(self._parameters.values())
        return ParameterList(values[index]) if isinstance(index, slice) else values[index]

    def __setitem__(self, index: int, value: Any) -> None:
        self.register_parameter(list(self._parameters)[index], _parameter(value))

    def __repr__(self) -> str:
        lines = [_described(name, p) for name, p in self._parameters.items()]
        return _listing("ParameterList", lines)


class ParameterDict(Module):
    """A dictionary whose parameters are registered."""

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.update(parameters if parameters is not None else {})

    def update(self, parameters: Any) -> None:
        """Adds the parameters of a mapping or of (name, value) pairs."""
        for name, value in _pairs("ParameterDict", parameters):
            self[name] = value

    def copy(self) -> ParameterDict:
        """Another dictionary of the same parameters."""
        return ParameterDict(dict(self.items()))

    def clear(self) -> None:
        """Removes all parameters."""
        self._parameters.clear()

    def get(self, name: str, default: Any = None) -> Any:
        """The parameter of that name, or `default`."""
        return self._parameters.get(name, default)

    def setdefault(self, name: str, default: Any) -> Parameter:
        """The parameter of that name, which becomes `default` where there is none."""
        if name not in self:
            self[name] = default
        return self[name]

    def pop(self, name: str) -> Parameter:
        """Removes a parameter and returns it."""
        return self._parameters.pop(name)

    def popitem(self) -> tuple[str, Parameter]:
        """Removes the last parameter and returns it with its name."""
        return self._parameters.popitem()

    def __or__(self, other: Any) -> ParameterDict:
        result = self.copy()
        result.update(other)
        return result

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.register_parameter(name, _parameter(value))

    def __delitem__(self, name: str) -> None:
        del self._parameters[name]

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._parameters.keys()

    def values(self) -> Iterable[Parameter]:
        """The parameters."""
        return self._parameters.values()

    def items(self) -> Iterable[tuple[str, Parameter]]:
        """(name, parameter) pairs."""
        return self._parameters.items()

    def __repr__(self) -> str:
        return _listing("ParameterDict", [_described(n, p) for n, p in self._parameters.items()])


def _listing(name: str, lines: list[str]) -> str:
    return name + "(" + "\n".join(lines) + ")"


class Identity(Module):
    """Returns its input; takes and ignores any arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Flatten(Module):
    """Joins the axes start_dim to end_dim."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    @on_tensors
    def forward(self, input: Any) -> Any:
        x = input if isinstance(input, Tensor) else Tensor(input)
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits the axis `dim` into several; one of their sizes may be -1."""

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        self.dim = integer("Unflatten", "dim", dim)
        if not isinstance(unflattened_size, tuple | list):
            raise TypeError(
                "Unflatten: unflattened_size must be a tuple of integers, got "
                f"unflattened_size={unflattened_size!r}"
            )
        for size in unflattened_size:
            integer("Unflatten", "unflattened_size", size, -1)
        self.unflattened_size = unflattened_size

    @on_tensors
    def forward(self, input: Any) -> Any:
        x = input if isinstance(input, Tensor) else Tensor(input)
        axis = normal_axis("Unflatten", "dim", self.dim, x.ndim)
        row = np.empty(x.shape[axis : axis + 1], np.bool_)  # what its reshape finds for -1
        try:
            parts = row.reshape(self.unflattened_size).shape
        except ValueError:
            raise ValueError(
                f"Unflatten: unflattened_size must multiply to the axis {self.dim}, got "
                f"input.shape={x.shape}, unflattened_size={self.unflattened_size}"
            ) from None
        return x.reshape(*x.shape[:axis], *parts, *x.shape[axis + 1 :])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
