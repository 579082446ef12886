"""Pooling of regions of interest, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("roi"), ids=str)
def test_roi(benchmark, case):
    measure(benchmark, case)
