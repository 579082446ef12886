"""Activations, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("activation"), ids=str)
def test_activation(benchmark, case):
    measure(benchmark, case)
