"""CUDA kernels on the CPU: what the checking build finds and counts, and the order of threads.

    with lamina.simt.check() as report:
        lamina.functional.softmax(x, 1)
    assert report.findings == []

`lamina.backend("simt_check")` runs the same kernels without a report. csrc/simt/README.md says what
is found and counted, and how.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from . import runtime


class Finding(NamedTuple):
    """Something wrong: its kind (race-shared, out-of-bounds, ...), and where, in words."""

    kind: str
    kernel: str
    text: str
    times: int


class Requests(NamedTuple):
    """The requests of one source line of a kernel; a request is one instruction of one warp.

    Global memory moves in sectors of 32 bytes; the ideal is the fewest that hold what the lanes
    ask for. Shared memory moves in wavefronts over 32 banks of 4 bytes. `caller` is the kernel's
    line where `file` and `line` lie in a helper.
    """

    kernel: str
    file: str
    line: int
    caller: str
    shared: bool
    write: bool
    atomic: bool
    requests: int
    lanes: int
    bytes: int
    sectors: int
    ideal_sectors: int
    wavefronts: int
    ideal_wavefronts: int


class Counters(NamedTuple):
    """Totals. `flops` are of float32, two a fused multiply-add; `special` are exp, sqrt, ..."""

    launches: int
    blocks: int
    switches: int
    barriers: int
    collectives: int
    flops: int
    special: int
    mma_flops: int


class Report:
    """What happened in a block of `check`; empty until the block ends."""

    findings: list[Finding]
    requests: list[Requests]
    counters: Counters

    def __init__(self) -> None:
        self.findings, self.requests = [], []
        self.counters = Counters(*[0] * len(Counters._fields))


def findings() -> list[Finding]:
    """What the checking build has found since the last `clear`."""
    found = runtime.load_backend("simt_check").findings()
    return [Finding(f["kind"], f["kernel"], f["text"], f["count"]) for f in found]


def requests() -> list[Requests]:
    """The memory requests of the checking build since the last `clear`, line by line."""
    return [Requests(**entry) for entry in runtime.load_backend("simt_check").requests()]


def counters(backend: str = "simt_check") -> Counters:
    """The totals of a backend since the last `clear`; "simt" counts no operations of float32."""
    return Counters(**runtime.load_backend(backend).counters())


def clear() -> None:
    """Forgets findings, requests and counters."""
    checking = runtime.load_backend("simt_check")
    checking.clear_check()
    checking.reset_counters()
    runtime.load_backend("simt").reset_counters()


@contextmanager
def check() -> Iterator[Report]:
    """Runs the calls of the block on "simt_check" and reports on them.

    Findings from before are forgotten. What ends a kernel, such as an access out of bounds, raises
    RuntimeError; the report then holds what led to it.
    """
    clear()
    report = Report()
    try:
        with runtime.backend("simt_check"):
            yield report
    finally:
        report.findings, report.requests = findings(), requests()
        report.counters = counters()


_schedule = ("forward", 1)


@contextmanager
def schedule(name: str, seed: int = 1) -> Iterator[None]:
    """Runs the threads of each block in that order: "forward", "reverse" or "random".

    For the whole process. A correct kernel gives the same bits, and the same findings, in each.
    """
    global _schedule
    modules = [runtime.load_backend(backend) for backend in ("simt", "simt_check")]
    before = _schedule
    for module in modules:
        module.set_schedule(name, seed)
    _schedule = (name, seed)
    try:
        yield
    finally:
        for module in modules:
            module.set_schedule(*before)
        _schedule = before
