"""Softmax, log-softmax and cross-entropy, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("softmax"), ids=str)
def test_softmax(benchmark, case):
    measure(benchmark, case)
