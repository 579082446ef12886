"""The worker threads: same bits however many there are, from many callers, and after a fork."""

from __future__ import annotations

import os
import subprocess
import sys
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


LARGE = GENERATOR.standard_normal((32, 64, 32, 32)).astype(np.float32)
ROWS = LARGE.reshape(2048, 1024)
SHARED = {
    "conv2d": lambda: F.conv2d(LARGE, W[:, :1].repeat(64, 1)),
    "relu": lambda: F.relu(LARGE),
    "batch_norm": lambda: F.batch_norm(LARGE, None, None, training=True),
    "softmax": lambda: F.softmax(ROWS, 1),
    "add": lambda: lamina.add(ROWS, ROWS[0]),
    "exp": lambda: lamina.exp(ROWS),
    "sum": lambda: lamina.sum(ROWS),
    "sum.rows": lambda: lamina.sum(ROWS, 0),
    "mean": lambda: lamina.mean(LARGE, (0, 2, 3)),
    "var": lambda: lamina.var(ROWS, 1),
    "amax": lambda: lamina.amax(ROWS, 1),
    "max": lambda: lamina.max(ROWS, 0),
    "cumsum": lambda: lamina.cumsum(ROWS, 1),
}


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system for the threads")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SHARED)
def test_large_calls_are_shared_whatever_was_called_before(name):
    """Workers begin with the first call that has tasks for them; a forked child has none yet."""
    lamina.set_num_threads(3)
    F.relu(X[:1, :1, :1, :1].copy())  # too small to be shared
    child = os.fork()
    if child == 0:
        try:
            for _ in range(2):  # the first call of a function may be NumPy's
                SHARED[name]()
            os._exit(len(os.listdir("/proc/self/task")))
        except BaseException:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


MANY = GENERATOR.standard_normal((70001, 3)).astype(np.float32)
LABELS = GENERATOR.integers(0, 3, len(MANY))
TRAINED = {
    "nll_loss": lambda x: F.nll_loss(x, LABELS),
    "cross_entropy": lambda x: F.cross_entropy(x, LABELS, MANY[0] ** 2, ignore_index=1),
    "cross_entropy of probabilities": lambda x: F.cross_entropy(x, MANY**2),
    "pairwise_distance": lambda x: F.pairwise_distance(x, MANY),
    "long rows": lambda x: F.cosine_similarity(x.reshape(1, -1), MANY.reshape(1, -1)),
    "rms_norm": lambda x: F.rms_norm(x, (3,), lamina.tensor(MANY[0], requires_grad=True)),
    "glu": lambda x: F.glu(x[:-1], 0),
    "channel_shuffle": lambda x: F.channel_shuffle(x.reshape(1, 3, -1), 3),
}


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_are_the_same_bits(name):
    results = []
    for count in (1, 2, 5):
        lamina.set_num_threads(count)
        x = lamina.tensor(MANY, requires_grad=True)
        y = TRAINED[name](x)
        y.sum().backward()
        results.append((y.detach().numpy(), x.grad.numpy()))
    for result in results[1:]:
        assert_equal(result, results[0])


FEW_THREADS = """
import resource
import numpy as np, lamina
from lamina import functional as F
x, w = np.ones((4, 16, 24, 24), np.float32), np.ones((16, 16, 3, 3), np.float32)
lamina.set_num_threads(1)
expected = F.conv2d(x, w)
lamina.set_num_threads(4096)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 26), resource.RLIM_INFINITY))
for _ in range(3):
    assert (F.conv2d(x, w) == expected).all()
print(lamina.get_num_threads())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_threads_that_the_system_refuses_are_done_without():
    """Each needs a stack; no more than a few fit into 64 MB."""
    environment = {**os.environ, "LAMINA_NUM_THREADS": "100000"}
    done = subprocess.run(
        [sys.executable, "-c", FEW_THREADS], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout) == (0, "4096\n"), done.stderr


LITTLE_MEMORY = """
import resource
import numpy as np, lamina
from lamina import functional as F
x, w = np.ones((8, 64, 64, 640), np.float32), np.ones((8, 64, 61, 61), np.float32)
lamina.set_num_threads(4)
F.relu(x)  # the workers are there
failed = 0
for kilobytes in (0, 400, 1600, 3200):
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + kilobytes * 1024, resource.RLIM_INFINITY))
    try:
        F.conv2d(x, w, stride=100, algo="direct")
    except MemoryError:
        failed += 1
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert failed > 0
assert (F.conv2d(x, w, stride=100, algo="direct") == 64 * 61 * 61).all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_no_memory_in_a_task_is_an_error_of_the_call():
    environment = {**os.environ, "LAMINA_IDLE_BYTES": "0"}
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_environment_names_at_most_what_a_call_may():
    for text, expected in (("100000", 4096), ("3", 3)):
        environment = {**os.environ, "LAMINA_NUM_THREADS": text}
        code = "import lamina; print(lamina.get_num_threads())"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert done.stdout == f"{expected}\n", done.stderr
