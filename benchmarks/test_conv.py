"""Convolution layers: every algorithm, forward and both gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("conv"), ids=str)
def test_conv(benchmark, case):
    measure(benchmark, case)
