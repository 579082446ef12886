"""Filters packed once and kept are never those of a weight written since."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref

import lamina
import numpy as np
import pytest
from lamina import functional as F
from lamina import nn, optim

GENERATOR = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return GENERATOR.standard_normal(shape).astype(dtype)


X = normal(1, 8, 10, 10)


@pytest.fixture(autouse=True)
def _on_the_cpu():
    gc.collect()
    with lamina.backend("cpu"):
        yield


def conv_layer():
    return nn.Conv2d(8, 16, 3, padding=1, algo="winograd")


def transposed_layer():
    return nn.ConvTranspose2d(8, 16, 4, 2, 1, algo="implicit_gemm")


def run(layer, x=X):
    with lamina.no_grad():
        return layer(lamina.Tensor(x)).numpy()


def packs(layer):
    return layer.weight._packed is not None


def warm(layer, x=X):
    """Runs the layer until its filters are kept."""
    for _ in range(3):
        run(layer, x)
    assert packs(layer)
    return layer


def expected(weight, x=X):
    """Of an array, whose packed form nobody keeps."""
    return F.conv2d(x, np.array(weight), padding=1, algo="winograd")


def expected_of(layer):
    weight = np.array(layer.weight._data)
    if layer.transposed:
        return F.conv_transpose2d(X, weight, None, 2, 1, algo="implicit_gemm")
    return expected(weight)


def bare(layer):
    """Without a bias, so that the weight decides alone."""
    layer.bias = None
    return layer


# ---- Never stale


def by_data(layer):
    layer.weight.data[0] = 3


def by_data_of_a_view(layer):
    layer.weight.data[0][1][...] = 3


def by_new_data(layer):
    layer.weight.data = normal(*layer.weight.shape)


def by_numpy(layer):
    layer.weight.requires_grad_(False).numpy()[...] *= 2


def by_array_protocol(layer):
    np.asarray(layer.weight.requires_grad_(False))[1] = 0


def by_dlpack(layer):
    np.from_dlpack(layer.weight.requires_grad_(False))[...] = 1


def by_memoryview(layer):
    memoryview(layer.weight.data).cast("B")[:4] = b"\0\0\0\0"


def by_ctypes(layer):
    pointer = layer.weight.data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    pointer[0] = 7.0


def by_out(layer):
    np.add(layer.weight.data, 1, out=layer.weight.data)


def by_item(layer):
    with lamina.no_grad():
        layer.weight[0, 1] = 5


def by_zero(layer):
    with lamina.no_grad():
        layer.weight.zero_()


def by_fill(layer):
    with lamina.no_grad():
        layer.weight.fill_(0.25)


def by_copy(layer):
    with lamina.no_grad():
        layer.weight.copy_(normal(*layer.weight.shape))


def by_detached(layer):
    layer.weight.detach().fill_(0.25)


def by_part(layer):
    with lamina.no_grad():
        layer.weight[3].zero_()


def by_reshaped(layer):
    with lamina.no_grad():
        layer.weight.reshape(-1)[4] = 9.0


def by_another_tensor(layer):
    lamina.Tensor(layer.weight).fill_(2.0)


def by_activation_in_place(layer):
    with lamina.no_grad():
        F.relu(layer.weight, inplace=True)


def by_function(layer):
    class Double(lamina.Function):
        @staticmethod
        def forward(ctx, x):
            x *= 2
            return x.copy()

    with lamina.no_grad():
        Double.apply(layer.weight)


def by_saved_for_backward(layer):
    y = layer(lamina.Tensor(X))
    for array in y.grad_fn.ctx.saved:
        if array.shape == layer.weight.shape:
            array[...] = 2


def by_init(layer):
    nn.init.xavier_uniform_(layer.weight)


def by_reset(layer):
    layer.reset_parameters()


def by_state_dict(layer):
    layer.state_dict()["weight"][...] = 1


def by_load_state_dict(layer):
    layer.load_state_dict({"weight": normal(*layer.weight.shape)})


def by_vector(layer):
    nn.utils.vector_to_parameters(lamina.Tensor(normal(layer.weight.numel())), [layer.weight])


def by_optimiser(make):
    def step(layer):
        layer.weight.grad = lamina.Tensor(normal(*layer.weight.shape))
        make([layer.weight]).step()

    return step


def by_training(layer):
    """A step after the recorded call, as in a loop."""
    optimiser = optim.SGD(layer.parameters(), lr=0.1)
    layer(lamina.Tensor(X)).sum().backward()
    optimiser.step()


def by_pickle(layer):
    state = layer.weight.__reduce__()[1]
    state[0][...] = 2


def by_copied_reference(layer):
    copy.copy(layer.weight).detach().zero_()


def by_double_and_back(layer):
    layer.to(np.float64)
    layer.weight.data[...] *= 3
    layer.to(np.float32)


def by_initialisation(layer):
    lamina.Tensor.__init__(layer.weight, normal(*layer.weight.shape))


WRITES = [
    *(write for name, write in sorted(globals().items()) if name.startswith("by_")),
]
WRITES.remove(by_optimiser)
STEPS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.1),
    "rprop": lambda p: optim.Rprop(p, lr=0.1),
}


@pytest.mark.parametrize("make", [conv_layer, transposed_layer])
@pytest.mark.parametrize(
    "write",
    [*WRITES, *map(by_optimiser, STEPS.values())],
    ids=[*(write.__name__ for write in WRITES), *STEPS],
)
def test_writes_are_seen(write, make):
    layer = warm(bare(make()))
    for _ in range(3):
        before = run(layer)
        write(layer)
        after = run(layer)
        np.testing.assert_array_equal(after, expected_of(layer))
        np.testing.assert_array_equal(run(layer), after)
        if write is by_optimiser:
            assert (before != after).any()
    warm(layer)


HELD = {
    "array": lambda w: w.data,
    "view": lambda w: w.data[2:],
    "flat": lambda w: w.data.reshape(-1),
    "memoryview": lambda w: np.asarray(memoryview(w.data)),
    "dlpack": lambda w: np.from_dlpack(w.data),
    "detached": lambda w: w.detach(),
    "tensor": lambda w: lamina.Tensor(w.data),
    "part": lambda w: w.detach()[0],
    "state": lambda w: pickle.loads(pickle.dumps({})) or w.data,
}


@pytest.mark.parametrize("make", [conv_layer, transposed_layer])
@pytest.mark.parametrize("hold", HELD.values(), ids=HELD)
def test_what_somebody_holds_is_not_kept(hold, make):
    layer = warm(bare(make()))
    held = hold(layer.weight)
    for value in (1.0, 2.0):
        for _ in range(3):
            np.testing.assert_array_equal(run(layer), expected_of(layer))
            assert not packs(layer)
        held[...] = value
    np.testing.assert_array_equal(run(layer), expected_of(layer))
    del held
    warm(layer)


def test_an_array_that_the_caller_made_is_kept_only_when_he_let_it_go():
    array = normal(16, 8, 3, 3)
    weight = lamina.Tensor(array)
    x = lamina.Tensor(X)
    for value in (1, 2, 3):
        for _ in range(3):
            found = F.conv2d(x, weight, padding=1, algo="winograd").numpy()
            np.testing.assert_array_equal(found, expected(array))
        array[0, 0] = value
    assert weight._packed is None
    del array
    for _ in range(2):
        F.conv2d(x, weight, padding=1, algo="winograd")
    assert weight._packed is not None


def test_memory_that_a_weak_reference_reaches_is_not_kept():
    layer = warm(bare(conv_layer()))
    weak = weakref.ref(layer.weight.data)
    for value in (1.0, 2.0):
        run(layer)
        weak()[...] = value
        np.testing.assert_array_equal(run(layer), expected(layer.weight._data))
    assert not packs(layer)


def test_foreign_memory_is_not_kept():
    memory = bytearray(16 * 8 * 9 * 4)
    weight = lamina.Tensor(np.frombuffer(memory, np.float32).reshape(16, 8, 3, 3))
    for byte in (0, 63, 62):
        memory[:] = bytes([byte]) * len(memory)
        for _ in range(3):
            found = F.conv2d(lamina.Tensor(X), weight, padding=1, algo="winograd").numpy()
            np.testing.assert_array_equal(found, expected(weight._data))
    assert weight._packed is None


def test_the_gradient_as_a_weight():
    """Backward adds to it in compiled code."""
    leaf = lamina.tensor(normal(16, 8, 3, 3), requires_grad=True)
    (leaf * leaf).sum().backward()
    for _ in range(3):
        with lamina.no_grad():
            for _ in range(3):
                found = F.conv2d(lamina.Tensor(X), leaf.grad, padding=1, algo="winograd")
        assert leaf.grad._packed is not None
        np.testing.assert_array_equal(found.numpy(), expected(leaf.grad._data))
        (leaf * leaf).sum().backward()


def test_copies_are_independent():
    layer = warm(bare(conv_layer()))
    other = copy.deepcopy(layer)
    third = pickle.loads(pickle.dumps(layer))
    with lamina.no_grad():
        other.weight.fill_(1.0)
        third.weight.fill_(2.0)
    for one in (layer, other, third) * 3:
        np.testing.assert_array_equal(run(one), expected(one.weight.data))


def test_shared_weights_are_seen_by_both():
    first, second = bare(conv_layer()), bare(conv_layer())
    second.weight = first.weight
    warm(first)
    warm(second)
    with lamina.no_grad():
        second.weight.mul_(2) if hasattr(second.weight, "mul_") else second.weight.fill_(3.0)
    np.testing.assert_array_equal(run(first), expected(first.weight.data))


# ---- Memory


def test_memory_is_counted_and_freed():
    before = lamina.packed_filter_bytes()
    layer = warm(conv_layer())
    assert lamina.packed_filter_bytes() - before >= layer.weight.nbytes * 16 // 9
    layer(lamina.Tensor(X))  # recorded
    assert lamina.packed_filter_bytes() == before
    warm(layer)
    layer.weight.data[0] = 0
    assert lamina.packed_filter_bytes() == before
    warm(layer)
    del layer
    gc.collect()
    assert lamina.packed_filter_bytes() == before


@pytest.mark.parametrize("make", [conv_layer, transposed_layer])
def test_calls_that_record_keep_nothing(make):
    layer = make()
    before = lamina.packed_filter_bytes()
    for _ in range(4):
        layer(lamina.Tensor(X)).sum().backward()
    assert not packs(layer)
    assert lamina.packed_filter_bytes() == before


def test_the_limit():
    layer = warm(conv_layer())
    plain = run(layer)
    limit = lamina.set_packed_filter_limit(0)
    try:
        np.testing.assert_array_equal(run(layer), plain)
        assert not packs(layer)
        lamina.set_packed_filter_limit(layer.weight.nbytes // 2)
        run(layer)
        assert not packs(layer)
    finally:
        lamina.set_packed_filter_limit(limit)
    warm(layer)
    with pytest.raises(ValueError, match=r"set_packed_filter_limit: bytes .* got bytes=-1"):
        lamina.set_packed_filter_limit(-1)


def test_a_workspace_limit_keeps_nothing():
    weight = lamina.tensor(normal(16, 8, 3, 3))
    for _ in range(4):
        F.conv2d(lamina.Tensor(X), weight, algo="winograd", workspace_limit=10**9)
    assert weight._packed is None


def test_the_environment_sets_the_limit():
    code = "import lamina; print(lamina.set_packed_filter_limit(5))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LAMINA_PACKED_BYTES": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "12345"


# ---- Threads and processes


def test_many_threads_share_a_weight_that_one_of_them_writes():
    layer = bare(nn.Conv2d(32, 64, 3, padding=1, algo="winograd"))
    x = normal(1, 32, 16, 16)
    values = [np.float32(value) for value in (0.5, 1, 2)]
    found, wrong, stop = set(), [], threading.Event()

    def of(value):
        weight = np.full(layer.weight.shape, value, np.float32)
        return F.conv2d(x, weight, padding=1, algo="winograd")

    right = {value.item(): of(value) for value in values}

    def read():
        while not stop.is_set():
            found.add(run(layer, x).tobytes())

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(60):
        for value in values:
            with lamina.no_grad():
                layer.weight.fill_(value)
            for _ in range(2):
                if (run(layer, x) != right[value.item()]).any():
                    wrong.append(value)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_keeps_its_own():
    layer = warm(bare(conv_layer()))
    plain = run(layer)
    child = os.fork()
    if child == 0:
        same = (run(layer) == plain).all()
        layer.weight.data[...] *= 2
        changed = (run(layer) == expected(layer.weight.data)).all()
        os._exit(0 if same and changed else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(run(layer), plain)
    assert packs(layer)
