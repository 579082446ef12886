"""The precision of float32 products: a setting of the process, noted in the plan."""

from __future__ import annotations

import os
import subprocess
import sys

import cases
import lamina
import lamina.functional as F
import numpy as np
import pytest


def test_setting_and_block():
    assert lamina.get_float32_precision() == "highest"
    lamina.set_float32_precision("high")
    assert lamina.get_float32_precision() == "high"
    with lamina.set_float32_precision("medium"):
        assert lamina.get_float32_precision() == "medium"
    assert lamina.get_float32_precision() == "high"
    lamina.set_float32_precision("highest")


@pytest.mark.parametrize("bad", ["tf32", "", None, 1])
def test_bad_words(bad):
    with pytest.raises(ValueError, match="^set_float32_precision: precision must be 'highest', 'h"):
        lamina.set_float32_precision(bad)
    assert lamina.get_float32_precision() == "highest"


def test_environment():
    code = "import lamina; print(lamina.get_float32_precision())"
    for word, printed in (("high", "high\n"), ("", "highest\n")):
        environment = {**os.environ, "LAMINA_FLOAT32_PRECISION": word}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert done.stdout == printed


def test_plan_notes_what_a_call_may_use(backend):
    for dtype, noted in ((np.float32, "high"), (np.float64, "highest")):
        x, weight = cases.reals((2, 3, 6, 6), 1, dtype), cases.reals((4, 3, 3, 3), 2, dtype)
        with lamina.set_float32_precision("high"):
            F.conv2d(x, weight)
            assert lamina.last_plan().precision == noted
            F.linear(x, x[0, 0])
            assert lamina.last_plan().precision == noted
        F.conv2d(x, weight)
        assert lamina.last_plan().precision == "highest"
