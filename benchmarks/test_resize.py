"""Resizing and shuffles, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("resize"), ids=str)
def test_resize(benchmark, case):
    measure(benchmark, case)
