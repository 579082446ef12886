"""Backends, threads and what ran: the switches of the compiled kernels.

`Kernel` names one line of the registry; `Plan` says which kernel the last call on this thread used
and why the other algorithms did not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from . import _C


class Kernel(NamedTuple):
    backend: str
    op: str
    pass_: str
    algo: str

    def __str__(self) -> str:
        return "-".join(self)


class Plan(NamedTuple):
    """What ran: `refusals` holds (algo, reason) for every algorithm that did not."""

    op: str
    pass_: str
    backend: str
    algo: str
    isa: str
    workspace_bytes: int
    refusals: tuple[tuple[str, str], ...]


@lru_cache(maxsize=1)
def _registry() -> tuple[Kernel, ...]:
    return tuple(map(Kernel._make, _C.kernels()))


@lru_cache(maxsize=1)
def _backends() -> tuple[str, ...]:
    return tuple(sorted({kernel.backend for kernel in _registry()}))


def kernels(
    op: str | None = None, pass_: str | None = None, backend: str | None = None
) -> list[Kernel]:
    """Every registered kernel, optionally only those of an op, a pass or a backend."""
    wanted = {"op": op, "pass_": pass_, "backend": backend}
    return [
        kernel
        for kernel in _registry()
        if all(value is None or getattr(kernel, key) == value for key, value in wanted.items())
    ]


def last_plan() -> Plan:
    """The plan of the last kernel call on this thread."""
    return Plan(**_C.last_plan())


def get_backend() -> str:
    """The backend that NumPy arrays run on: LAMINA_BACKEND, or "cpu"."""
    return _C.current_backend()


def backends() -> list[str]:
    """The backends compiled into this installation."""
    return list(_backends())


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Runs the calls of the block on the backend `name` ("ref" or "cpu"), on this thread.

    Raises ValueError for a backend that is not compiled in.
    """
    if name not in _backends():
        raise ValueError(f"backend: name must be one of {list(_backends())}, got name={name!r}")
    before = _C.current_backend()
    _C.set_current_backend(name)
    try:
        yield
    finally:
        _C.set_current_backend(before)


def get_num_threads() -> int:
    """How many threads a kernel may use."""
    return _C.num_threads()


def set_num_threads(count: int) -> None:
    """Caps the threads of every kernel. Results do not depend on it.

    Raises ValueError below 1.
    """
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 4096:
        raise ValueError(f"set_num_threads: count must be from 1 to 4096, got count={count!r}")
    _C.set_num_threads(count)


def isa() -> str:
    """The instruction set the cpu backend runs with: LAMINA_ISA caps it."""
    return _C.isa()
