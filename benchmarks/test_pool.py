"""Maximum, average and adaptive pooling, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("pool"), ids=str)
def test_pool(benchmark, case):
    measure(benchmark, case)
