"""The worker threads: same bits however many there are, from many callers, and after a fork."""

from __future__ import annotations

import os
import threading

import lamina
import numpy as np
import pytest
from lamina import functional as F

GENERATOR = np.random.default_rng(0)
X = GENERATOR.standard_normal((4, 16, 24, 24)).astype(np.float32)
W = GENERATOR.standard_normal((16, 16, 3, 3)).astype(np.float32)


def results():
    """Calls with many tasks and with one, large and small."""
    small = X[:1, :2, :4, :4].copy()
    return [
        F.conv2d(X, W, padding=1),
        F.relu(small),
        F.max_pool2d(X, 2),
        F.softmax(X, 1),
        F.softmax(small, 1),
        F.layer_norm(X, X.shape[1:]),
    ]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_counts_that_change_all_the_time():
    expected = results()
    for step in range(60):
        lamina.set_num_threads(1 + step * 7 % 5)
        assert_equal(results(), expected)


def test_workers_asleep_and_awake():
    """Callers that come at once, and after the workers went to sleep."""
    lamina.set_num_threads(3)
    expected = results()
    pause = threading.Event()
    for step in range(40):
        pause.wait(0 if step % 2 else 0.001)
        assert_equal(results(), expected)


def test_many_callers():
    lamina.set_num_threads(3)
    expected = results()
    wrong = []

    def work():
        for _ in range(20):
            try:
                assert_equal(results(), expected)
            except AssertionError as error:
                wrong.append(error)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_workers_of_its_own():
    lamina.set_num_threads(3)
    expected = results()
    child = os.fork()
    if child == 0:
        try:
            for _ in range(5):
                assert_equal(results(), expected)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert_equal(results(), expected)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
