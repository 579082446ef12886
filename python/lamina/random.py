"""The seeded generators behind initialisers, random pooling and dropout.

Two Philox streams for the whole process, restarted together by `manual_seed`: NumPy's generator for
initialisers and pooling, and the kernels' own (csrc/shared/philox.h), whose masks are the same on
every backend.
"""

from __future__ import annotations

import threading

import numpy as np

_lock = threading.Lock()
_generator: np.random.Generator | None = None
_seed: int | None = None
_offset = 0


def manual_seed(seed: int) -> None:
    """Restarts both streams: equal seeds give equal draws on every machine.

    Raises ValueError for a negative seed, TypeError for anything but an integer.
    """
    global _generator, _offset, _seed
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"manual_seed: seed must be an integer, got seed={seed!r}")
    if seed < 0:
        raise ValueError(f"manual_seed: seed must not be negative, got seed={seed}")
    with _lock:
        _generator = np.random.Generator(np.random.Philox(int(seed)))
        _seed, _offset = int(seed) % 2**64, 0


def generator() -> np.random.Generator:
    """NumPy's generator; seeded from the operating system until `manual_seed` is called."""
    global _generator
    with _lock:
        if _generator is None:
            _generator = np.random.Generator(np.random.Philox())
        return _generator


def next_words(count: int) -> tuple[int, int]:
    """(seed, offset) of `count` words of the kernels' stream that nobody else gets."""
    global _offset, _seed
    with _lock:
        if _seed is None:
            _seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        offset = _offset
        _offset = (offset + -(-count // 4)) % 2**64
        return _seed, offset
