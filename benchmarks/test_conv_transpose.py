"""Transposed convolution layers: every algorithm, forward and both gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("conv_transpose"), ids=str)
def test_conv_transpose(benchmark, case):
    measure(benchmark, case)
