"""Dropout, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("dropout"), ids=str)
def test_dropout(benchmark, case):
    measure(benchmark, case)
