"""`lamina.autotune(True)`: convolutions with algo="auto" take what is fastest on this machine.

The first call of a shape times every algorithm that the cost rule could have chosen (so none
beyond the error bound of `get_float32_precision()`), on the arrays of that call; the times of a
shape, pass, dtype, precision and number of threads are kept in a file and serve later processes.
An algorithm's results are the same bits every time, but which one is fastest may differ between
two machines or two measurements: without autotuning, the choice depends on the shape alone.

The file belongs to a processor, an instruction set and a build of the library. Writers merge what
is there, one after the other, and rename a finished file over the old one. What cannot be read is
ignored and replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _C

try:
    import fcntl
except ImportError:  # Windows: the last of two writers at the same instant wins
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
FOREVER = 1e9  # seconds
Times = list[tuple[str, float]]


def autotune(enabled: bool = True) -> None:
    """Turns the measuring of convolution algorithms on or off, for the whole process.

    On the CPU backend only. `algo=` pins an algorithm as before; `lamina.last_plan().chosen_by`
    says "measured". LAMINA_AUTOTUNE=1 turns it on from the start. The times are kept under
    LAMINA_CACHE_DIR, or the user's cache directory.
    """
    if not isinstance(enabled, bool):
        raise TypeError(f"autotune: enabled must be True or False, got enabled={enabled!r}")
    _C.forget_measured_conv()
    if enabled:
        for question, times in read(cache_file()).items():
            _C.note_measured_conv(question, times)
    _C.set_autotuning(enabled, _keep if enabled else None)


def is_autotuning() -> bool:
    """Whether convolutions are measured."""
    return _C.autotuning()


def cache_file() -> Path:
    """Where the times of this processor, instruction set and build are."""
    chosen = os.environ.get("LAMINA_CACHE_DIR")
    if chosen:
        directory = Path(chosen)
    else:
        import platformdirs

        directory = platformdirs.user_cache_path("lamina", appauthor=False)
    name = hashlib.sha256(json.dumps(identity(), sort_keys=True).encode()).hexdigest()[:16]
    return directory / f"conv-{name}.json"


def identity() -> dict[str, str]:
    """What times depend on, beside the question."""
    from . import __version__

    return {
        "processor": _processor(),
        "isa": _C.isa(),
        "version": __version__,
        "build": str(os.stat(_C.__file__).st_mtime_ns),
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read(path: Path) -> dict[str, Times]:
    """The times in a file: none of a file that is missing, damaged, or another machine's."""
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT or content["identity"] != identity():
            return {}
        return {
            question: [(str(algo), _seconds(seconds)) for algo, seconds in times]
            for question, times in content["times"].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _seconds(value: Any) -> float:
    if not (isinstance(value, int | float) and 0 <= value < FOREVER):
        raise ValueError(f"not a time: {value!r}")
    return float(value)


def _keep(question: str, times: Times) -> None:
    """Adds a measurement to the file."""
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            known = {**read(path), question: times}
            content = {"format": FORMAT, "identity": identity(), "times": known}
            partial = path.with_suffix(".partial")  # of nobody else: a dead writer's is overwritten
            try:
                partial.write_text(json.dumps(content, indent=1) + "\n")
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(
            f"autotune: measured times are not kept between processes: {error}; set "
            "LAMINA_CACHE_DIR to a directory that can be written",
            RuntimeWarning,
            stacklevel=2,
        )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While no other process writes."""
    with open(path.with_suffix(".lock"), "w") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
