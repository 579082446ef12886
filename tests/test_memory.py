"""Results in recycled memory: never two arrays in one place, never more kept than allowed."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np
import pytest
from lamina import _C, arrays
from lamina import functional as F

FLOAT32 = np.dtype(np.float32)
LARGE = (1 << 20) // 4  # elements of a MiB of float32


@pytest.fixture
def nothing_idle():
    """Starts from an empty store and puts the limit back."""
    limit = _C.idle_limit()
    gc.collect()
    _C.set_idle_limit(0)
    _C.set_idle_limit(64 << 20)
    yield
    _C.set_idle_limit(limit)


def new(elements, dtype=FLOAT32):
    return arrays.empty("test", (elements,), dtype)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_of_a_dead_array_comes_back(nothing_idle):
    first = new(LARGE)
    assert first.flags.c_contiguous and first.flags.aligned and first.flags.writeable
    place = address(first)
    assert place % 64 == 0 and _C.idle_bytes() == 0
    del first
    assert _C.idle_bytes() >= LARGE * 4
    assert address(new(LARGE)) == place


def test_a_view_keeps_the_memory(nothing_idle):
    first = new(LARGE)
    place, view = address(first), first[5:].reshape(-1)
    del first
    assert _C.idle_bytes() == 0
    assert address(new(LARGE)) != place
    del view
    assert _C.idle_bytes() > 0


@pytest.mark.parametrize("elements", [0, 1, 4095, 4096, 4097, 5000, 70_000, 1 << 20, (1 << 21) + 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_every_element_is_there(nothing_idle, elements, dtype):
    for _ in range(3):
        pair = [new(elements, np.dtype(dtype)) for _ in range(2)]
        for number, array in enumerate(pair):
            array[:] = number + 1
        assert all((array == number + 1).all() for number, array in enumerate(pair))
        del array, pair


def test_the_limit_holds_and_the_oldest_go_first(nothing_idle):
    held = [new(LARGE * (2 + i)) for i in range(4)]
    places = [address(array) for array in held]
    sizes = [array.nbytes for array in held]
    _C.set_idle_limit(sizes[2] + sizes[3] + (1 << 20))
    while held:
        held.pop(0)
    assert 0 < _C.idle_bytes() <= _C.idle_limit()
    assert address(new(sizes[3] // 4)) == places[3]
    _C.set_idle_limit(0)
    assert _C.idle_bytes() == 0
    large = new(LARGE)
    del large
    assert _C.idle_bytes() == 0


def test_random_lives_never_overlap(nothing_idle):
    generator = np.random.default_rng(0)
    _C.set_idle_limit(8 << 20)
    alive = {}
    for step in range(2000):
        if alive and generator.random() < 0.5:
            number = int(generator.choice(list(alive)))
            array = alive.pop(number)
            assert (array == number).all()
        else:
            alive[step] = new(int(generator.integers(4096, 300_000)))
            alive[step][:] = step
        assert _C.idle_bytes() <= 8 << 20
    assert all((array == number).all() for number, array in alive.items())


def test_many_threads(nothing_idle):
    failures = []

    def work(number):
        for step in range(300):
            array = new(4096 * (1 + (step * 7 + number) % 5))
            array[:] = number
            if not (array == number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_its_own(nothing_idle):
    kept = new(LARGE)
    kept[:] = 1
    gone = new(LARGE)
    del gone
    child = os.fork()
    if child == 0:
        array = F.relu(kept)
        array[:] = 2
        del array
        again = new(LARGE)
        os._exit(0 if (kept == 1).all() and len(again) == LARGE else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    again = new(LARGE)
    again[:] = 3
    assert (kept == 1).all()


def test_bad_sizes_are_refused_as_before():
    for shape, error in [
        ((-1, 4), ValueError),
        ((2**62, 4), ValueError),
        ((2**40, 2**10), MemoryError),
        ((0, -1), ValueError),
    ]:
        with pytest.raises(error, match="test: the result"):
            arrays.empty("test", shape, FLOAT32)
    assert arrays.empty("test", (0, 2**40), FLOAT32).shape == (0, 2**40)
