"""Steps of recurrent cells, forward and with gradients."""

import pytest
from harness import cases, measure


@pytest.mark.parametrize("case", cases("rnn"), ids=str)
def test_rnn(benchmark, case):
    measure(benchmark, case)
