"""Fixtures and rules shared by the whole suite."""

from __future__ import annotations

import lamina
import pytest


@pytest.fixture(autouse=True)
def _restore_threads():
    """A test may change the thread count; the next one starts from the same place."""
    before = lamina.get_num_threads()
    yield
    lamina.set_num_threads(before)


@pytest.fixture(params=["ref", "cpu"])
def backend(request):
    """Runs the test once under each backend that a NumPy array can take."""
    with lamina.backend(request.param):
        yield request.param
