"""The seeded generator behind initialisers, dropout and random pooling.

One NumPy Philox stream for the whole process; `manual_seed` restarts it.
"""

from __future__ import annotations

import threading

import numpy as np

_lock = threading.Lock()
_generator: np.random.Generator | None = None


def manual_seed(seed: int) -> None:
    """Restarts the generator: equal seeds give equal draws on every machine.

    Raises ValueError for a negative seed, TypeError for anything but an integer.
    """
    global _generator
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"manual_seed: seed must be an integer, got seed={seed!r}")
    if seed < 0:
        raise ValueError(f"manual_seed: seed must not be negative, got seed={seed}")
    with _lock:
        _generator = np.random.Generator(np.random.Philox(int(seed)))


def generator() -> np.random.Generator:
    """The generator; seeded from the operating system until `manual_seed` is called."""
    global _generator
    with _lock:
        if _generator is None:
            _generator = np.random.Generator(np.random.Philox())
        return _generator
