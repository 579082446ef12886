"""Times of calls that take turns, on a machine where other processes run too.

A sample is as many calls in a row as fill a fraction of a millisecond, after others that are not
counted: they wake the caller's threads and bring the operands into cache. With several threads
there is a pause before: those of a library spin for a while after a call (OpenMP's some 10 ms), on
processors that the next library would use. A round takes one sample of each call, so that the
clock's drift meets all of them; ratios are medians of ratios within a round. Rounds come in blocks
long enough for the kernel's tick counters to tell how much of the processors other processes had:
blocks above FOREIGN_SHARE are measured again.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np

from .. import _C

Call = Callable[[], Any]

SAMPLE_SECONDS = 3e-4  # some hundred times what reading the clock costs
WAKING_SECONDS = 1.5e-3  # after a pause: calls of 80 us were seen at 400, 200, 140, 100, 85, 80
WARM_SECONDS = 5e-2  # what takes longer is its own warm-up
PAUSE_SECONDS, MOST_PAUSES = 4e-3, 50
BLOCK_SECONDS = 0.15  # 30 ticks of two processors
FOREIGN_SHARE = 0.08  # of all processors
MOST_ROUNDS, LEAST_ROUNDS = 200, 3
COPIED_BYTES = 128 << 20


# Memory

# glibc's mallopt parameters.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4


def keep_memory(keep: bool) -> bool:
    """Tells glibc's malloc to keep what is freed, or to give large arrays back to the system.

    Fresh pages cost more than many a kernel: torch is at its best where memory is kept. Otherwise
    as in a process that has freed large arrays before: up to 32 MiB are kept. False without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = (
        {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 1 << 28}
        if keep
        else {
            _MMAP_MAX: 65536,
            _MMAP_THRESHOLD: 32 << 20,
            _TRIM_THRESHOLD: 64 << 20,
            _TOP_PAD: 128 << 10,
        }
    )
    return 0 not in [mallopt(name, value) for name, value in settings.items()]


class Copies:
    """Copies from memory to memory with as many threads as the kernels have.

    The faster of the C library's, which may read what it overwrites, and this library's copy past
    the caches.
    """

    def __init__(self, threads: int) -> None:
        source, target = (
            np.ones((threads, COPIED_BYTES // 4 // threads), np.float32) for _ in "st"
        )
        pool = ThreadPoolExecutor(threads)
        rows = [COPIED_BYTES >> 16, 1 << 14]
        self.moved = 2 * source.nbytes  # read and written
        copies: list[Call] = [
            lambda: list(pool.map(np.copyto, target, source)),
            lambda: _C.permute(source, rows, [0, 1], target),
        ]
        best = [min(_sample(copy, 1, 0) for _ in range(5)) for copy in copies]
        self.seconds, self.copy = min(best), copies[best.index(min(best))]


# Other processes


class _Ticks(NamedTuple):
    """Processor seconds since the machine started: of everybody, of this process; and the time."""

    all: float
    own: float
    wall: float


def _ticks() -> _Ticks | None:
    """None where the system does not tell."""
    try:
        with open("/proc/stat") as stat:
            fields = [int(word) for word in stat.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    busy = user + nice + system + irq + softirq + steal
    return _Ticks(busy / os.sysconf("SC_CLK_TCK"), time.process_time(), time.perf_counter())


def _foreign_share(before: _Ticks | None, after: _Ticks | None) -> float:
    """The part of all processors that others had in between."""
    if before is None or after is None:
        return 0.0
    others = (after.all - before.all) - (after.own - before.own)
    return max(others, 0.0) / ((after.wall - before.wall) * (os.cpu_count() or 1))


# Rounds


class Times(NamedTuple):
    """Seconds of every call in every round that was kept, and how many rounds were not."""

    rounds: list[dict[str, float]]
    rejected: int
    foreign: float  # the mean share of other processes in the rounds that were kept

    def median(self, name: str) -> float:
        return statistics.median(times[name] for times in self.rounds)

    def ratio(self, name: str, of: str) -> float:
        """How many times faster `name` is than `of`."""
        return statistics.median(times[of] / times[name] for times in self.rounds)


class Within:
    """A call under settings. They hold around a sample: what it takes to set them is not timed."""

    def __init__(self, call: Call, settings: Callable[[], AbstractContextManager[None]]) -> None:
        self.call, self.settings = call, settings

    def __call__(self) -> Any:
        with self.settings():
            return self.call()


def interleaved(calls: Mapping[str, Call], seconds: float, pauses: bool = False) -> Times:
    """Times of the calls, measured for `seconds` together (at least LEAST_ROUNDS rounds).

    `pauses`: before each sample, until the threads of this process sleep.
    Where other processes leave no quiet block in three times as long, the quietest are taken.
    """
    with _without_collector():
        repeats = {name: _repeats(call) for name, call in calls.items()}
        kept: list[tuple[float, list[dict[str, float]]]] = []
        noisy: list[tuple[float, list[dict[str, float]]]] = []
        limit = time.perf_counter() + 3 * max(seconds, BLOCK_SECONDS)
        spent, rounds = 0.0, 0
        while rounds < LEAST_ROUNDS or (spent < seconds and rounds < MOST_ROUNDS):
            block: list[dict[str, float]] = []
            before, start = _ticks(), time.perf_counter()
            while not block or time.perf_counter() - start < min(BLOCK_SECONDS, seconds):
                times = {}
                for name, call in calls.items():
                    if pauses:
                        _wait_for_sleep()
                    times[name] = _sample(call, *repeats[name])
                block.append(times)
            foreign = _foreign_share(before, _ticks())
            if foreign > FOREIGN_SHARE:
                noisy.append((foreign, block))
                if time.perf_counter() > limit:
                    break
                continue
            kept.append((foreign, block))
            spent += time.perf_counter() - start
            rounds += len(block)
    rejected = sum(len(block) for _, block in noisy)
    for foreign, block in sorted(noisy, key=lambda pair: pair[0]):
        if rounds >= LEAST_ROUNDS:
            break
        kept.append((foreign, block))
        rounds += len(block)
        rejected -= len(block)
    share = statistics.fmean(foreign for foreign, _ in kept)
    return Times([times for _, block in kept for times in block], rejected, share)


def _wait_for_sleep() -> None:
    """Until this process's threads use less than a twentieth of a processor."""
    for _ in range(MOST_PAUSES):
        before = time.process_time()
        time.sleep(PAUSE_SECONDS)
        if time.process_time() - before < PAUSE_SECONDS / 20:
            return


def _repeats(call: Call) -> tuple[int, int]:
    """How many calls a sample has, and how many go before it."""
    if isinstance(call, Within):
        with call.settings():
            return _repeats(call.call)
    elapsed, until = math.inf, time.perf_counter() + WAKING_SECONDS
    while elapsed == math.inf or time.perf_counter() < until:
        elapsed = min(elapsed, max(_sample(call, 1, 0), 1e-7))
    before = math.ceil(WAKING_SECONDS / elapsed) if elapsed < WARM_SECONDS else 0
    return math.ceil(SAMPLE_SECONDS / elapsed), before


def _sample(call: Call, repeats: int, before: int) -> float:
    if isinstance(call, Within):
        with call.settings():
            return _sample(call.call, repeats, before)
    for _ in range(before):
        call()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


@contextmanager
def _without_collector() -> Iterator[None]:
    """Python's cyclic collector would meet one call and not the other."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
