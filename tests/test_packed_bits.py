"""Products with filters packed once and kept have the bits of those packed anew."""

from __future__ import annotations

import lamina
import numpy as np
import pytest
from lamina import functional as F
from lamina import nn
from lamina.functional.conv import ALGORITHMS

GENERATOR = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return GENERATOR.standard_normal(shape).astype(dtype)


def run(layer, x):
    with lamina.no_grad():
        return layer(lamina.Tensor(x)).numpy()


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with lamina.backend("cpu"):
        yield


SHAPES = [
    # x, weight, options
    ((1, 16, 7, 7), (24, 16, 3, 3), {"padding": 1}),
    ((2, 16, 30, 30), (24, 16, 3, 3), {"padding": 1}),
    ((1, 16, 30, 30), (24, 16, 1, 1), {}),
    ((1, 16, 30, 30), (24, 16, 1, 1), {"stride": 2}),
    ((3, 24, 9, 11), (12, 8, 3, 3), {"padding": 1, "groups": 3}),
    ((1, 16, 20, 20), (8, 16, 3, 3), {"padding": 6, "dilation": 6}),
    ((1, 16, 20, 20), (8, 16, 5, 5), {"padding": 2}),
    ((2, 16, 14, 14), (9, 16, 3, 3), {"stride": 2}),
    ((1, 16, 17, 17), (24, 16, 1, 7), {"padding": (0, 3)}),
    ((2, 12, 9, 8), (6, 4, 4, 1), {"groups": 3}),
]


@pytest.fixture(params=["highest", "medium"])
def _precision(request):
    with lamina.set_float32_precision(request.param):
        yield


def same_bits(call, x_shape, weight_shape, dtype, **options):
    """Whether the filters are kept; None where the algorithm cannot run."""
    x, weight = normal(*x_shape, dtype=dtype), normal(*weight_shape, dtype=dtype)
    kept = lamina.tensor(weight)
    try:
        plain = call(x, weight, **options)
    except ValueError:
        return None
    for threads in (1, 3, 2, 2):
        lamina.set_num_threads(threads)
        np.testing.assert_array_equal(call(lamina.Tensor(x), kept, **options).numpy(), plain)
    return kept._packed is not None


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_bits_of_convolutions_are_those_of_filters_packed_anew(algo, dtype):
    for x_shape, weight_shape, options in SHAPES:
        same_bits(F.conv2d, x_shape, weight_shape, dtype, algo=algo, **options)


TRANSPOSED = [
    # x, weight, options, whether implicit_gemm keeps its panels
    ((1, 16, 4, 4), (16, 12, 4, 4), {"stride": 2, "padding": 1}, True),
    ((2, 16, 5, 6), (16, 12, 5, 5), {"stride": 2, "padding": 2}, True),  # blocks share panels
    ((1, 12, 4, 5), (12, 5, 3, 3), {"stride": 2, "groups": 3}, True),
    ((1, 300, 3, 3), (300, 4, 2, 2), {"stride": (1, 2)}, True),
    ((1, 6, 3, 4, 4), (6, 5, 2, 3, 3), {"stride": 2, "output_padding": 1}, True),
    ((2, 10, 1, 1), (10, 12, 4, 4), {}, True),  # each result has a tap
    ((1, 6, 33, 5), (6, 4, 2, 2), {"stride": 2}, True),  # bands of rows
    ((1, 24, 7), (24, 5, 3), {"dilation": 3, "groups": 2}, True),
    ((1, 16, 7, 7), (16, 12, 4, 4), {"padding": 1}, True),
    ((1, 300, 28, 28), (300, 9, 2, 2), {}, True),
    ((2, 16, 30, 30), (16, 9, 2, 2), {}, False),
    ((2, 16, 30, 30), (16, 9, 2, 2), {"stride": 2}, False),
    ((1, 16, 9, 9), (16, 8, 3, 3), {"padding": 1}, True),
    ((1, 16, 9, 9), (16, 8, 5, 5), {"padding": 2}, True),
    ((1, 16, 17, 17), (16, 24, 1, 7), {"padding": (0, 3)}, True),
]


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_bits_of_transposed_convolutions_are_those_of_filters_packed_anew(algo, dtype):
    for x_shape, weight_shape, options, keeps in TRANSPOSED:
        call = getattr(F, f"conv_transpose{len(x_shape) - 2}d")
        kept = same_bits(call, x_shape, weight_shape, dtype, algo=algo, **options)
        if algo == "implicit_gemm":
            assert kept is keeps


def test_a_convolution_and_its_transpose_take_turns():
    kept = lamina.tensor(normal(16, 8, 3, 3))
    plain = kept.data.copy()
    forward, backward = normal(1, 8, 12, 12), normal(1, 16, 6, 6)
    for _ in range(3):
        for algo in ("winograd", "implicit_gemm"):
            for stride, groups in ((1, 1), (2, 1), (3, 1), (2, 2), (1, 2), (1, 1)):
                if algo == "winograd" and stride > 1:
                    continue
                options = {"stride": stride, "groups": groups, "algo": algo}
                found = F.conv_transpose2d(lamina.Tensor(backward), kept, **options)
                expected = F.conv_transpose2d(backward, plain, **options)
                np.testing.assert_array_equal(found.numpy(), expected)
            found = F.conv2d(lamina.Tensor(forward), kept, padding=1, algo=algo)
            expected = F.conv2d(forward, plain, padding=1, algo=algo)
            np.testing.assert_array_equal(found.numpy(), expected)


def test_inputs_of_other_sizes_and_other_options_take_turns():
    layer = nn.Conv2d(16, 32, 3, padding=1)
    weight = layer.weight.data.copy()
    bias = layer.bias.data.copy()
    inputs = [normal(1, 16, side, side) for side in (5, 9, 40, 5, 64, 9)]
    for _ in range(3):
        for x in inputs:
            np.testing.assert_array_equal(run(layer, x), F.conv2d(x, weight, bias, padding=1))
    kept = lamina.tensor(normal(32, 8, 3, 3))
    plain = kept.data.copy()
    for groups in (1, 2, 1, 1, 2, 2, 2, 1):
        for algo in ("winograd", "implicit_gemm", "winograd4x1", "winograd"):
            x = normal(1, 8 * groups, 12, 12)
            options = {"groups": groups, "algo": algo, "padding": 1}
            found = F.conv2d(lamina.Tensor(x), kept, **options).numpy()
            np.testing.assert_array_equal(found, F.conv2d(x, plain, **options))


@pytest.mark.usefixtures("_precision")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [1, 4, 5, 8, 100, 600])
@pytest.mark.parametrize(("n", "k"), [(33, 300), (10, 1), (256, 256), (1, 700), (97, 513)])
def test_the_bits_of_linear_layers_are_those_of_weights_packed_anew(m, n, k, dtype):
    x, weight, bias = (normal(*shape, dtype=dtype) for shape in ((m, k), (n, k), (n,)))
    kept = lamina.tensor(weight)
    plain = F.linear(x, weight, bias)
    for _ in range(4):
        np.testing.assert_array_equal(F.linear(lamina.Tensor(x), kept, bias).numpy(), plain)


def test_a_batch_of_another_size_after_a_linear_layer_packed():
    layer = nn.Linear(300, 40)
    weight, bias = layer.weight.data.copy(), layer.bias.data.copy()
    for m in (8, 8, 2, 2, 8, 64, 2, 1000, 8):
        x = normal(m, 300)
        np.testing.assert_array_equal(run(layer, x), F.linear(x, weight, bias))


@pytest.mark.parametrize("cell", ["lstm_cell", "gru_cell", "rnn_tanh_cell"])
def test_the_bits_of_recurrent_cells_are_those_of_weights_packed_anew(cell):
    gates = {"lstm_cell": 4, "gru_cell": 3, "rnn_tanh_cell": 1}[cell]
    x, h = normal(6, 40), normal(6, 50)
    weights = normal(gates * 50, 40), normal(gates * 50, 50)
    state = (h, h) if cell == "lstm_cell" else h
    plain = getattr(F, cell)(x, state, *weights)
    kept = [lamina.tensor(weight) for weight in weights]
    for _ in range(3):
        found = getattr(F, cell)(lamina.Tensor(x), state, *kept)
        for ours, expected_ in zip(found, plain, strict=True):
            np.testing.assert_array_equal(np.asarray(ours.numpy()), expected_)
    assert all(weight._packed is not None for weight in kept)
