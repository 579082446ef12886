"""Batch, group, layer and local response normalisation, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("norm"), ids=str)
def test_norm(benchmark, case):
    measure(benchmark, case)
