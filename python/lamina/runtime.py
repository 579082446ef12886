"""Backends, threads and what ran: the switches of the compiled kernels.

`Kernel` names one line of the registry; `Plan` says which kernel the last call on this thread used
and why the other algorithms did not run.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from . import _C


class Kernel(NamedTuple):
    backend: str
    op: str
    pass_: str
    algo: str

    def __str__(self) -> str:
        return "-".join(self)


class Plan(NamedTuple):
    """What ran: `refusals` holds (algo, reason) for every algorithm that did not.

    `precision` is what `set_float32_precision` allowed a convolution or matrix product of float32.
    `chosen_by` is how a convolution's algorithm was chosen: "algo=", "cost rule" or "measured".
    """

    op: str
    pass_: str
    backend: str
    algo: str
    isa: str
    workspace_bytes: int
    refusals: tuple[tuple[str, str], ...]
    precision: str = "highest"
    chosen_by: str = ""

    def __str__(self) -> str:
        """A line for what ran, and one for each algorithm that did not."""
        lines = [
            f"{self.op} {self.pass_}: {self.algo} on {self.backend}",
            f"  {self.isa}, {self.workspace_bytes} bytes of workspace, precision {self.precision}",
            *(f"  not {algo}: {reason}" for algo, reason in self.refusals),
        ]
        lines[0] += f", chosen by {self.chosen_by}" * bool(self.chosen_by)
        return "\n".join(lines)


# Backends that are extension modules of their own, imported when they are first asked for.
_MODULES = {"simt": "_simt", "simt_check": "_simt_check", "cuda": "_cuda"}
_loaded: dict[str, Any] = {}


@lru_cache(maxsize=1)
def _backends() -> tuple[str, ...]:
    return ("ref", "cpu", *(name for name in _MODULES if _can_run(name)))


def _can_run(name: str) -> bool:
    if importlib.util.find_spec(f"{__package__}.{_MODULES[name]}") is None:
        return False
    return name != "cuda" or importlib.import_module("._cuda", __package__).device_count() > 0


def load_backend(name: str) -> Any:
    """The extension module behind a backend (None for ref and cpu); its kernels join the registry.

    Raises ValueError for a backend that is not compiled in.
    """
    if name not in _backends():
        if name == "cuda":
            from . import cuda

            cuda.require()
        raise ValueError(
            f"backend: name must be one of {list(_backends())}, got name={name!r} "
            "(of lamina.backend or LAMINA_BACKEND)"
        )
    if name in _MODULES and name not in _loaded:
        module = importlib.import_module(f".{_MODULES[name]}", __package__)
        module.set_num_threads(_C.num_threads())
        if name == "cuda":
            from . import arrays, cuda

            cuda.require()
            module.set_allocator(arrays.device_memory)
            module.join_registry()
        _loaded[name] = module
    return _loaded.get(name)


def kernels(
    op: str | None = None, pass_: str | None = None, backend: str | None = None
) -> list[Kernel]:
    """Every registered kernel, optionally only those of an op, a pass or a backend.

    The kernels of "simt_check", the same as those of "simt", are listed by that name only.
    """
    for name in _backends():
        if name != "simt_check" or backend == name:
            load_backend(name)
    wanted = {"op": op, "pass_": pass_, "backend": backend}
    return [
        kernel
        for kernel in map(Kernel._make, _C.kernels())
        if all(value is None or getattr(kernel, key) == value for key, value in wanted.items())
        and kernel.backend in _backends()
        and (kernel.backend != "simt_check" or backend == "simt_check")
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
    """Runs the calls of the block on the backend `name`, on this thread.

    "cpu" is the default for NumPy arrays, "ref" the reference implementation. "simt" runs the CUDA
    kernels on the CPU; "simt_check" also watches their memory accesses (`lamina.simt`). "cuda"
    copies NumPy arrays to the GPU and back for every call: to compare, not to be fast. CuPy arrays
    run on "cuda" whatever is chosen here.

    Raises ValueError for a backend that is not compiled in, RuntimeError for "cuda" without a GPU.
    """
    load_backend(name)
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
    for module in _loaded.values():
        module.set_num_threads(count)


def packed_filter_bytes() -> int:
    """Bytes of filters that were packed once and are kept (docs/extensions.md)."""
    return _C.packed_bytes()


def set_packed_filter_limit(bytes: int) -> int:
    """Sets how many bytes `packed_filter_bytes` may reach, 0 to keep none; returns what held.

    What is above a lower limit goes when its layer runs the next time. Raises ValueError below 0.
    """
    if not isinstance(bytes, int) or isinstance(bytes, bool) or bytes < 0:
        raise ValueError(
            f"set_packed_filter_limit: bytes must be an integer of at least 0, got bytes={bytes!r}"
        )
    before = _C.packed_limit()
    _C.set_packed_limit(min(bytes, 2**62))
    return before


if os.environ.get("LAMINA_BACKEND"):
    load_backend(os.environ["LAMINA_BACKEND"])


def isa() -> str:
    """The instruction set the cpu backend runs with: LAMINA_ISA caps it."""
    return _C.isa()


def get_float32_precision() -> str:
    """How exactly float32 is multiplied: LAMINA_FLOAT32_PRECISION, or "highest"."""
    return _C.float32_precision()


class set_float32_precision:
    """Sets how exactly float32 convolutions and matrix products are computed, in this process.

    "highest" (the default) is float32 arithmetic throughout; "high" allows tf32 products with
    float32 sums on CUDA tensor cores and algorithms that round a little more; "medium" also
    bfloat16 products with float32 sums. Error bounds: docs/extensions.md. As a context manager it
    sets the precision for the block only. ValueError for another word.
    """

    def __init__(self, precision: str) -> None:
        if not isinstance(precision, str):
            raise ValueError(
                "set_float32_precision: precision must be 'highest', 'high' or 'medium', "
                f"got precision={precision!r}"
            )
        self.before = _C.float32_precision()
        _C.set_float32_precision(precision)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        _C.set_float32_precision(self.before)
