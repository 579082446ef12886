"""Matrix products of fully connected layers, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("gemm"), ids=str)
def test_gemm(benchmark, case):
    measure(benchmark, case)
