"""Fixtures and rules shared by the whole suite."""

from __future__ import annotations

import os

import lamina
import pytest
from lamina import runtime


@pytest.fixture(autouse=True)
def _restore_threads():
    """A test may change the thread count; the next one starts from the same place."""
    before = lamina.get_num_threads()
    yield
    lamina.set_num_threads(before)


# All that this installation has; LAMINA_TEST_BACKENDS=ref,cpu asks for some of them.
BACKENDS = os.environ.get("LAMINA_TEST_BACKENDS", ",".join(lamina.backends())).split(",")


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Runs the test once under each backend that a NumPy array can take."""
    with lamina.backend(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def _no_findings():
    """Under simt_check a test fails for every race, bad access or missing barrier it shows."""
    checker = runtime.load_backend("simt_check") if "simt_check" in BACKENDS else None
    if checker is not None:
        checker.clear_check()
    yield
    if checker is not None:
        assert checker.findings() == []
