"""The unrolled input of a convolution, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("unfold"), ids=str)
def test_unfold(benchmark, case):
    measure(benchmark, case)
