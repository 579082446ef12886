"""Sums, variances, norms, extremes and running sums over axes, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("reduction"), ids=str)
def test_reduction(benchmark, case):
    measure(benchmark, case)
