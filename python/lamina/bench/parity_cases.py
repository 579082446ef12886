"""What `lamina parity` calls, as data: functions and layers of torch with arguments for both sides.

A `Real` becomes a float64 array that takes part in the gradients; arrays and everything else are
passed as they are (arrays converted for the peer).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Real(NamedTuple):
    """A random input; `kind` says from where."""

    shape: tuple[int, ...]
    kind: str = "normal"  # normal, positive, unit (0 to 1), probability (rows sum to 1)
    gradient: bool = True

    def array(self, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        if self.kind == "unit":
            return rng.uniform(0.05, 0.95, self.shape)
        if self.kind == "positive":
            return rng.uniform(0.1, 2.0, self.shape)
        x = rng.normal(size=self.shape)
        return np.exp(x) / np.exp(x).sum(1, keepdims=True) if self.kind == "probability" else x


class Call(NamedTuple):
    args: tuple[Any, ...]
    options: dict[str, Any] = {}


class Layer(NamedTuple):
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    inputs: tuple[Any, ...]


def _call(*args: Any, **options: Any) -> Call:
    return Call(args, options)


FLAT, LINE, IMAGE, CUBE = (5, 6), (2, 4, 9), (2, 4, 7, 6), (2, 4, 5, 4, 6)
SPATIAL = {1: LINE, 2: IMAGE, 3: CUBE}
LABELS = np.array([1, 0, 5, 3, 2])
SIGNS = np.sign(np.random.default_rng(7).normal(size=FLAT))
BITS = (SIGNS > 0) * 1.0
X, Y, Z = Real(FLAT), Real(FLAT), Real(FLAT)
POSITIVE, UNIT = Real(FLAT, "positive"), Real(FLAT, "unit")
FIXED = Real(FLAT, "positive", gradient=False)

FUNCTIONS: dict[str, list[Call]] = {}


def _same(names: str, *calls: Call) -> None:
    for name in names.split():
        FUNCTIONS[name] = list(calls)


# Activations
_same(
    "relu relu6 elu selu celu gelu silu mish softplus softsign softshrink hardshrink tanhshrink "
    "hardtanh hardswish logsigmoid sigmoid tanh leaky_relu",
    _call(Real(IMAGE)),
    _call(Real((11,))),
    _call(Real((2, 3, 65))),
)
FUNCTIONS["elu"].append(_call(X, 0.3))
FUNCTIONS["celu"].append(_call(X, 0.5))
FUNCTIONS["gelu"].append(_call(X, approximate="tanh"))
FUNCTIONS["leaky_relu"].append(_call(X, 0.2))
FUNCTIONS["softplus"].append(_call(X, 2.0, 1.0))
FUNCTIONS["softshrink"].append(_call(X, 0.3))
FUNCTIONS["hardshrink"].append(_call(X, 0.3))
FUNCTIONS["hardtanh"].append(_call(X, -0.4, 0.6))
_same("hardsigmoid", _call(Real(IMAGE, gradient=False)), _call(Real((11,), gradient=False)))
_same("threshold", _call(X, 0.1, 20.0), _call(Real(IMAGE), -0.5, 0.0))
_same("prelu", _call(Real(IMAGE), Real((4,))), _call(X, Real((1,))))
_same("rrelu", _call(X), _call(X, 0.2, 0.4, training=False))
_same("glu", _call(X), _call(Real(IMAGE), 1), _call(Real(IMAGE), -1))
_same("softmax log_softmax softmin", _call(X, 1), _call(Real(IMAGE), 1), _call(Real(IMAGE), -1))

# Convolution
for n, shape in SPATIAL.items():
    x, w, b = Real(shape), Real((6, 4, *(3, 2, 2)[:n])), Real((6,))
    FUNCTIONS[f"conv{n}d"] = [
        _call(x, w, b),
        _call(x, w, None, stride=2, padding=1),
        _call(x, w, b, padding="valid"),
        _call(Real(shape[1:]), w, b, padding=2, dilation=2 if n < 3 else 1),
        _call(x, Real((6, 2, *(3, 2, 2)[:n])), b, groups=2),
        _call(x, Real((8, 1, *(3, 2, 2)[:n])), Real((8,)), groups=4, stride=(2,) * n),
    ]
    t = Real((4, 6, *(3, 2, 2)[:n]))
    FUNCTIONS[f"conv_transpose{n}d"] = [
        _call(x, t, b),
        _call(x, t, None, stride=2, padding=1, output_padding=1),
        _call(Real(shape[1:]), t, b, dilation=2),
        _call(x, Real((4, 3, *(3, 2, 2)[:n])), b, groups=2, stride=3),
    ]
FUNCTIONS["conv2d"].append(_call(Real(IMAGE), Real((3, 4, 3, 3)), None, padding="same", dilation=2))
_same(
    "unfold", _call(Real(IMAGE), 2), _call(Real(IMAGE), (3, 2), 2, 1, 2), _call(Real((4, 5, 5)), 2)
)
_same("fold", _call(Real((2, 8, 6)), (3, 4), 2), _call(Real((8, 9)), 6, 2, stride=2))
_same("linear", _call(X, Real((3, 6)), Real((3,))), _call(Real(IMAGE), Real((2, 6))))
_same("bilinear", _call(X, Real((5, 3)), Real((4, 6, 3)), Real((4,))))

# Pooling
for n, shape in SPATIAL.items():
    x = Real(shape)
    FUNCTIONS[f"max_pool{n}d"] = [
        _call(x, 2),
        _call(x, 3, 2, 1),
        _call(x, 2, 1, 0, 2),
        _call(Real(shape[1:]), 2, ceil_mode=True),
        _call(x, 2, return_indices=True),
    ]
    FUNCTIONS[f"max_pool{n}d_with_indices"] = [_call(x, 2), _call(x, 3, 2, 1)]
    FUNCTIONS[f"avg_pool{n}d"] = [
        _call(x, 2),
        _call(x, 3, 2, 1, count_include_pad=False),
        _call(x, 3, 2, 1, ceil_mode=True),
    ]
    FUNCTIONS[f"lp_pool{n}d"] = [_call(Real(shape, "positive"), 2.0, 2), _call(x, 4, 3, 2)]
    out = (3, 2, 2)[:n]
    FUNCTIONS[f"adaptive_avg_pool{n}d"] = [_call(x, out), _call(x, 1)]
    FUNCTIONS[f"adaptive_max_pool{n}d"] = [_call(x, out), _call(x, out, return_indices=True)]
    FUNCTIONS[f"adaptive_max_pool{n}d_with_indices"] = [_call(x, out)]
    indices = np.argsort(np.random.default_rng(1).normal(size=(2, 3, 6**n)), -1)[..., : 3**n]
    pooled = (2, 3, *(3,) * n)
    FUNCTIONS[f"max_unpool{n}d"] = [
        _call(Real(pooled), indices.reshape(pooled), 2),
        _call(Real(pooled), indices.reshape(pooled), 2, output_size=(7,) * n),
    ]
FUNCTIONS["avg_pool2d"].append(_call(Real(IMAGE), 3, 2, divisor_override=5))
for n in (2, 3):
    samples = np.random.default_rng(2).uniform(size=(2, 4, n))
    x = Real((2, 4, *(9, 8, 7)[:n]))
    for suffix in ("", "_with_indices"):
        FUNCTIONS[f"fractional_max_pool{n}d{suffix}"] = [
            _call(x, 2, output_size=(4,) * n, _random_samples=samples),
            _call(x, (2, 3, 2)[:n], output_ratio=(0.5,) * n, _random_samples=samples),
        ]

# Resizing, padding, shuffles
FUNCTIONS["interpolate"] = [
    _call(Real(LINE), 5, mode="linear"),
    _call(Real(LINE), scale_factor=1.7, mode="linear"),
    _call(Real(LINE), scale_factor=1.7, mode="linear", recompute_scale_factor=True),
    _call(Real(IMAGE), (9, 13), mode="bilinear"),
    _call(Real(IMAGE), (9, 4), mode="bilinear", align_corners=True),
    _call(Real(IMAGE), (3, 4), mode="bilinear", antialias=True),
    _call(Real(IMAGE), (9, 13), mode="bicubic"),
    _call(Real(IMAGE), (4, 5), mode="bicubic", antialias=True),
    _call(Real(IMAGE), (9, 13), mode="nearest"),
    _call(Real(IMAGE), (4, 13), mode="nearest-exact"),
    _call(Real(IMAGE), (4, 3), mode="area"),
    _call(Real(CUBE), (7, 3, 9), mode="trilinear"),
    _call(Real(CUBE), scale_factor=2, mode="nearest"),
]
_same("upsample", _call(Real(IMAGE), scale_factor=2), _call(Real(IMAGE), (9, 9), mode="bilinear"))
_same("upsample_nearest", _call(Real(IMAGE), (9, 9)), _call(Real(IMAGE), scale_factor=3))
_same("upsample_bilinear", _call(Real(IMAGE), (9, 9)), _call(Real(IMAGE), scale_factor=2))
FUNCTIONS["pad"] = [
    _call(Real(IMAGE), (1, 2)),
    _call(Real(IMAGE), (1, -2, 3, 0), value=1.5),
    _call(Real(IMAGE), (1, 2, 3, 0), "reflect"),
    _call(Real(IMAGE), (1, 2, 3, 0), "replicate"),
    _call(Real(IMAGE), (1, 2, 3, 0), "circular"),
    _call(Real(CUBE), (1, 2, 3, 0, 1, 1), "replicate"),
]
_same("pixel_shuffle", _call(Real((2, 8, 3, 2)), 2), _call(Real((9, 1, 2)), 3))
_same("pixel_unshuffle", _call(Real((2, 3, 4, 6)), 2))
_same("channel_shuffle", _call(Real(IMAGE), 2), _call(Real(IMAGE), 4))
_same("native_channel_shuffle", _call(Real(IMAGE, gradient=False), 2))  # no gradient in torch

# Normalisation and dropout
MEAN, VAR = np.linspace(-1, 1, 4), np.linspace(0.5, 2, 4)
W4, B4 = Real((4,)), Real((4,))
FUNCTIONS["batch_norm"] = [
    _call(Real(IMAGE), MEAN, VAR, W4, B4),
    _call(Real(IMAGE), MEAN, VAR, W4, B4, True, 0.2),
    _call(Real((5, 4)), None, None, None, None, True),
]
_same("instance_norm", _call(Real(IMAGE)), _call(Real(LINE), MEAN, VAR, W4, B4))
_same("group_norm", _call(Real(IMAGE), 2, W4, B4), _call(Real(LINE), 4))
_same("layer_norm", _call(Real(IMAGE), (6,), Real((6,)), Real((6,))), _call(Real(IMAGE), (7, 6)))
_same("rms_norm", _call(Real(IMAGE), (6,), Real((6,))), _call(Real(IMAGE), (7, 6), None, 0.1))
_same("local_response_norm", _call(Real(IMAGE), 3), _call(Real(LINE), 2, 0.5, 0.6, 2.0))
_same("normalize", _call(X), _call(Real(IMAGE), 3.0, -1))
_same(
    "dropout alpha_dropout feature_alpha_dropout",
    _call(X, 0.5, training=False),
    _call(X, 0.0, training=True),
    _call(X, 1.0, training=True),
)
for n, shape in SPATIAL.items():
    _same(f"dropout{n}d", _call(Real(shape), 0.5, False), _call(Real(shape), 1.0, True))

# Tables
TABLE = Real((7, 3))
BAG = np.array([[0, 6, 2], [3, 3, 1]])
FUNCTIONS["embedding"] = [
    _call(BAG, TABLE),
    _call(BAG, TABLE, padding_idx=3),
    _call(BAG, TABLE, scale_grad_by_freq=True),
]
FUNCTIONS["embedding_bag"] = [
    *(_call(BAG, TABLE, mode=mode) for mode in ("sum", "mean", "max")),
    _call(BAG.ravel(), TABLE, np.array([0, 2, 2])),
    _call(BAG, TABLE, mode="sum", per_sample_weights=Real((2, 3))),
    _call(BAG, TABLE, padding_idx=3),
]
_same("one_hot", _call(BAG), _call(BAG, 9))

# Distances and losses
REDUCTIONS: tuple[dict[str, Any], ...] = ({}, {"reduction": "sum"}, {"reduction": "none"})
for name, args in {
    "l1_loss": (X, Y),
    "mse_loss": (X, Y),
    "smooth_l1_loss": (X, Y),
    "huber_loss": (X, Y),
    "kl_div": (X, POSITIVE),
    "poisson_nll_loss": (X, POSITIVE),
    "gaussian_nll_loss": (X, Y, POSITIVE),
    "binary_cross_entropy": (UNIT, BITS),
    "binary_cross_entropy_with_logits": (X, BITS),
    "hinge_embedding_loss": (X, SIGNS),
    "soft_margin_loss": (X, SIGNS),
    "margin_ranking_loss": (X, Y, SIGNS),
    "cosine_embedding_loss": (X, Y, SIGNS[:, 0].copy()),
    "multi_margin_loss": (X, LABELS),
    "multilabel_margin_loss": (X, np.tile([3, 0, -1, 1, 2, 4], (5, 1))),
    "multilabel_soft_margin_loss": (X, BITS),
    "triplet_margin_loss": (X, Y, Z),
    "triplet_margin_with_distance_loss": (X, Y, Z),
    "nll_loss": (X, LABELS),
    "cross_entropy": (X, LABELS),
}.items():
    FUNCTIONS[name] = [Call(args, options) for options in REDUCTIONS]
FUNCTIONS["smooth_l1_loss"].append(_call(X, Y, beta=0.2))
FUNCTIONS["huber_loss"].append(_call(X, Y, delta=0.3))
FUNCTIONS["kl_div"].append(_call(X, Y, reduction="batchmean", log_target=True))
FUNCTIONS["poisson_nll_loss"].append(_call(POSITIVE, FIXED, log_input=False, full=True))
FUNCTIONS["gaussian_nll_loss"].append(_call(X, Y, POSITIVE, full=True))
FUNCTIONS["binary_cross_entropy"].append(_call(UNIT, BITS, FIXED))
FUNCTIONS["binary_cross_entropy_with_logits"].append(
    _call(X, BITS, FIXED, pos_weight=np.linspace(0.5, 2, 6))
)
FUNCTIONS["multi_margin_loss"].append(_call(X, LABELS, 2, 0.7, np.linspace(0.5, 2, 6)))
FUNCTIONS["triplet_margin_loss"].append(_call(X, Y, Z, 2.0, 3.0, swap=True))
FUNCTIONS["nll_loss"].append(_call(Real((2, 4, 3)), np.array([[0, 3, 1], [2, 2, 0]])))
FUNCTIONS["nll_loss"].append(_call(X, LABELS, np.linspace(0.5, 2, 6), ignore_index=3))
FUNCTIONS["cross_entropy"] += [
    _call(X, LABELS, np.linspace(0.5, 2, 6), ignore_index=3, label_smoothing=0.2),
    _call(X, Real(FLAT, "probability"), label_smoothing=0.1),
    _call(Real((2, 4, 3)), np.array([[0, 3, 1], [2, 2, 0]])),
]
_same("cosine_similarity", _call(X, Y), _call(Real(IMAGE), Real(IMAGE), 2))
_same("pairwise_distance", _call(X, Y), _call(X, Y, 3.0, keepdim=True))
_same("pdist", _call(X), _call(X, 1.0), _call(X, 3.5))
_LENGTHS = np.array([8, 6]), np.array([3, 2])
LOGS = Real((8, 2, 5), gradient=False)
_TARGETS = np.array([[1, 2, 2], [3, 1, 0]])
FUNCTIONS["ctc_loss"] = [
    _call(LOGS, _TARGETS, *_LENGTHS),
    _call(LOGS, _TARGETS, *_LENGTHS, reduction="none", zero_infinity=True),
]

# Deliberate differences; of random functions only the fixed cases are compared.
DIFFERENT = {
    "gumbel_softmax": "random: own seeded stream; same formula, compared with NumPy in the tests",
    "dropout": "random: own Philox stream, the same on every backend; fixed cases agree",
    "dropout1d": "random: own Philox stream; fixed cases agree",
    "dropout2d": "random: own Philox stream; fixed cases agree",
    "dropout3d": "random: own Philox stream; fixed cases agree",
    "alpha_dropout": "random: own Philox stream; fixed cases agree",
    "feature_alpha_dropout": "random: own Philox stream; fixed cases agree",
    "rrelu": "random when training: own seeded stream; fixed cases agree",
    "embedding": "max_norm does not write to weight (nn.Embedding does); no sparse gradients",
    "embedding_bag": "max_norm does not write to weight; no sparse gradients",
    "ctc_loss": "the true gradient of log_probs; torch's presumes a log_softmax before it",
    "hardsigmoid": "gradient 1/6 in float64, where torch rounds it to float32",
    "celu": "gradient in float64, where torch rounds 1 / alpha to float32",
    "interpolate": "mode='nearest' in exact arithmetic where torch rounds o * in / out, and by a "
    "scale_factor that its 2-D kernel ignores where sizes stay or double",
    "cosine_similarity": "the gradient of norms below eps is that of the constant eps",
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d"),
        "also padding as (low, high) pairs, 'same' at any stride, algo=, workspace_limit=, "
        "activation=, residual= (extensions.md)",
    ),
}


def _each(names: str, value: Any) -> dict[str, Any]:
    return dict.fromkeys(names.split(), value)


_NEVER_WRITTEN = "use the function without the underscore and inplace=True"
_HELPER = "a helper of torch's own code"
_SEQUENCES = "whole sequences and attention are not part of the library yet"
_SPATIAL_TRANSFORMERS = "spatial transformers are not part of the library yet"
NOT_OFFERED = {
    **_each("celu_ elu_ hardtanh_ leaky_relu_ relu_ rrelu_ selu_ threshold_", _NEVER_WRITTEN),
    **_each("Optional assert_int_or_pair boolean_dispatch handle_torch_function", _HELPER),
    **_each("has_torch_function has_torch_function_unary has_torch_function_variadic", _HELPER),
    **_each("affine_grid grid_sample", _SPATIAL_TRANSFORMERS),
    **_each("grouped_mm scaled_mm scaled_grouped_mm", "GPU matrix products in 8 bits"),
    **_each("multi_head_attention_forward scaled_dot_product_attention", _SEQUENCES),
    "conv_tbc": "one layout: [N, C, L]",
    "linear_cross_entropy": "call linear and cross_entropy",
    # layers
    **_each("LSTM GRU RNN RNNBase MultiheadAttention Transformer", _SEQUENCES),
    **_each("TransformerDecoder TransformerDecoderLayer TransformerEncoder", _SEQUENCES),
    **_each("TransformerEncoderLayer", _SEQUENCES),
    **_each(
        "LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d "
        "LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d LazyInstanceNorm1d "
        "LazyInstanceNorm2d LazyInstanceNorm3d LazyLinear UninitializedBuffer "
        "UninitializedParameter",
        "sizes are always given",
    ),
    **_each("DataParallel SyncBatchNorm", "one device"),
    **_each("LinearCrossEntropyLoss LinearCrossEntropyOptions", "call Linear, CrossEntropyLoss"),
    "AdaptiveLogSoftmaxWithLoss": "not part of the library yet",
    "Buffer": "use Module.register_buffer",
    "Container": "deprecated in torch",
    "CrossMapLRN2d": "use LocalResponseNorm",
    "NLLLoss2d": "deprecated in torch; use NLLLoss",
    "RNNCellBase": "a base class; the cells are offered",
}

I, L, C, F = Real(IMAGE), Real(LINE), Real(CUBE), X
# name -> constructor arguments, options and inputs
LAYERS: dict[str, list[Layer]] = {
    "Linear": [Layer((6, 3), {}, (F,)), Layer((6, 3), {"bias": False}, (F,))],
    "Bilinear": [Layer((6, 3, 4), {}, (F, Real((5, 3))))],
    "Identity": [Layer((), {}, (F,))],
    "Flatten": [Layer((), {}, (I,)), Layer((2,), {}, (I,))],
    "Unflatten": [Layer((1, (2, 3)), {}, (F,))],
    "Conv1d": [
        Layer((4, 6, 3), {"padding": 1, "groups": 2}, (L,)),
        Layer((4, 6, 4), {"padding": "same", "padding_mode": "replicate"}, (L,)),
    ],
    "Conv2d": [
        Layer((4, 6, (3, 2)), {"stride": 2, "bias": False}, (I,)),
        Layer((4, 6, 3), {"padding": "same", "dilation": 2}, (I,)),
        Layer((4, 6, 3), {"padding": (1, 2), "padding_mode": "reflect"}, (I,)),
        Layer((4, 6, 3), {"padding": "same", "padding_mode": "circular"}, (I,)),
    ],
    "Conv3d": [Layer((4, 2, 2), {"padding": 1, "padding_mode": "replicate"}, (C,))],
    "ConvTranspose1d": [Layer((4, 6, 3), {"stride": 2, "output_padding": 1}, (L,))],
    "ConvTranspose2d": [Layer((4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}, (I,))],
    "ConvTranspose3d": [Layer((4, 2, 2), {"dilation": 2, "bias": False}, (C,))],
    "BatchNorm1d": [Layer((6,), {}, (F,)), Layer((4,), {}, (L,))],
    "BatchNorm2d": [Layer((4,), {"momentum": None, "eps": 1e-3}, (I,))],
    "BatchNorm3d": [Layer((4,), {"affine": False, "track_running_stats": False}, (C,))],
    "InstanceNorm1d": [Layer((4,), {}, (L,))],
    "InstanceNorm2d": [
        Layer((4,), {"affine": True, "track_running_stats": True}, (I,)),
        Layer((4,), {}, (Real(IMAGE[1:]),)),
    ],
    "InstanceNorm3d": [Layer((4,), {"affine": True}, (C,))],
    "GroupNorm": [Layer((2, 4), {}, (I,))],
    "LayerNorm": [Layer(((7, 6),), {}, (I,)), Layer((6,), {"bias": False}, (F,))],
    "RMSNorm": [
        Layer((6,), {}, (F,)),
        Layer(((7, 6),), {"eps": 0.1, "elementwise_affine": False}, (I,)),
    ],
    "LocalResponseNorm": [Layer((3,), {"alpha": 0.4}, (I,))],
    "Unfold": [Layer((2,), {"padding": 1}, (I,))],
    "Fold": [Layer(((3, 4), 2), {}, (Real((2, 8, 6)),))],
    "CosineSimilarity": [Layer((), {"dim": 1}, (I, I))],
    "PairwiseDistance": [Layer((), {"p": 3.0, "keepdim": True}, (F, F))],
    "L1Loss": [Layer((), {}, (F, Y)), Layer((), {"size_average": False}, (F, Y))],
    "MSELoss": [Layer((), {"reduction": "sum"}, (F, Y)), Layer((), {"reduce": False}, (F, Y))],
    "SmoothL1Loss": [Layer((), {"beta": 0.3}, (F, Y))],
    "HuberLoss": [Layer((), {"delta": 0.4, "reduction": "none"}, (F, Y))],
    "KLDivLoss": [Layer((), {"reduction": "batchmean", "log_target": True}, (F, Y))],
    "BCELoss": [Layer((), {}, (UNIT, BITS))],
    "BCEWithLogitsLoss": [Layer((), {"pos_weight": np.linspace(0.5, 2, 6)}, (F, BITS))],
    "NLLLoss": [Layer((), {"ignore_index": 2}, (F, LABELS))],
    "CrossEntropyLoss": [
        Layer((), {"label_smoothing": 0.1, "weight": np.linspace(0.5, 2, 6)}, (F, LABELS))
    ],
    "PoissonNLLLoss": [Layer((), {"full": True}, (F, FIXED))],
    "GaussianNLLLoss": [Layer((), {"full": True}, (F, Y, POSITIVE))],
    "HingeEmbeddingLoss": [Layer((), {"margin": 0.7}, (F, SIGNS))],
    "SoftMarginLoss": [Layer((), {}, (F, SIGNS))],
    "MarginRankingLoss": [Layer((), {"margin": 0.2}, (F, Y, SIGNS))],
    "CosineEmbeddingLoss": [Layer((), {"margin": 0.1}, (F, Y, np.array([1, -1, 1, 1, -1])))],
    "MultiMarginLoss": [Layer((), {"p": 2, "margin": 0.8}, (F, LABELS))],
    "MultiLabelMarginLoss": [Layer((), {}, (F, np.tile([3, 0, -1, 1, 2, 4], (5, 1))))],
    "MultiLabelSoftMarginLoss": [Layer((), {}, (F, BITS))],
    "TripletMarginLoss": [Layer((), {"swap": True, "margin": 2.0}, (F, Y, Z))],
    "TripletMarginWithDistanceLoss": [Layer((), {"margin": 3.0}, (F, Y, Z))],
    "CTCLoss": [Layer((), {"zero_infinity": True}, (LOGS, _TARGETS, *_LENGTHS))],
    "Embedding": [Layer((7, 3), {"padding_idx": 3}, (BAG,))],
    "EmbeddingBag": [Layer((7, 3), {"mode": "sum"}, (BAG,))],
    "RNNCell": [
        Layer((6, 3), {}, (F, Real((5, 3)))),
        Layer((6, 3), {"nonlinearity": "relu"}, (F,)),
    ],
    "GRUCell": [Layer((6, 3), {}, (F, Real((5, 3)))), Layer((6, 3), {"bias": False}, (F,))],
    "LSTMCell": [Layer((6, 3), {}, (F,)), Layer((6, 3), {"bias": False}, (F,))],
    "Softmax": [Layer((), {"dim": 1}, (I,))],
    "LogSoftmax": [Layer((), {"dim": -1}, (I,))],
    "Softmin": [Layer((), {"dim": 1}, (I,))],
    "Softmax2d": [Layer((), {}, (I,))],
    "Threshold": [Layer((0.1, 20.0), {}, (I,))],
    "GLU": [Layer((), {"dim": 1}, (I,))],
    "PReLU": [Layer((), {}, (I,)), Layer((4,), {"init": 0.1}, (I,))],
    "LeakyReLU": [Layer((0.2,), {}, (I,))],
    "ELU": [Layer((), {"alpha": 0.3}, (I,))],
    "CELU": [Layer((), {"alpha": 0.5}, (I,))],
    "Hardsigmoid": [Layer((), {}, (Real(IMAGE, gradient=False),))],
    "GELU": [Layer((), {}, (I,)), Layer((), {"approximate": "tanh"}, (I,))],
    "Softplus": [Layer((), {"beta": 2}, (I,))],
    "Hardtanh": [Layer((-0.5, 0.7), {}, (I,))],
    "Hardshrink": [Layer((0.3,), {}, (I,))],
    "Softshrink": [Layer((0.3,), {}, (I,))],
    **_each(
        "ReLU ReLU6 SELU SiLU Mish Softsign Tanhshrink Hardswish LogSigmoid Sigmoid Tanh",
        [Layer((), {}, (I,))],
    ),
    "PixelShuffle": [Layer((2,), {}, (I,))],
    "PixelUnshuffle": [Layer((2,), {}, (Real((2, 3, 4, 6)),))],
    "ChannelShuffle": [Layer((2,), {}, (I,))],
    "Upsample": [
        Layer((), {"scale_factor": 2, "mode": "bilinear"}, (I,)),
        Layer((), {"size": (3, 5)}, (I,)),
    ],
    "UpsamplingNearest2d": [Layer((), {"scale_factor": 2}, (I,))],
    "UpsamplingBilinear2d": [Layer((), {"size": (7, 9)}, (I,))],
    "ConstantPad1d": [Layer((1, 2.5), {}, (L,))],
    "ConstantPad2d": [Layer(((1, 0, 2, -1), 2.5), {}, (I,))],
    "ConstantPad3d": [Layer((1, 2.5), {}, (C,))],
    "FractionalMaxPool2d": [
        Layer(
            (2,),
            {
                "output_size": (3, 4),
                "_random_samples": np.random.default_rng(2).uniform(size=(2, 4, 2)),
            },
            (I,),
        )
    ],
    "FractionalMaxPool3d": [
        Layer(
            (2,),
            {
                "output_size": (3, 2, 3),
                "_random_samples": np.random.default_rng(2).uniform(size=(2, 4, 3)),
            },
            (C,),
        )
    ],
}
for n, (kind, size) in enumerate(((L, 2), (I, (3, 2)), (C, (2, 2, 3))), start=1):
    LAYERS[f"MaxPool{n}d"] = [
        Layer((2,), {}, (kind,)),
        Layer((3, 2, 1), {"ceil_mode": True}, (kind,)),
    ]
    LAYERS[f"AvgPool{n}d"] = [Layer((2,), {}, (kind,)), Layer((3, 2, 1), {}, (kind,))]
    LAYERS[f"LPPool{n}d"] = [Layer((4, 2), {}, (kind,))]
    LAYERS[f"AdaptiveMaxPool{n}d"] = [Layer((size,), {}, (kind,))]
    LAYERS[f"AdaptiveAvgPool{n}d"] = [Layer((size,), {}, (kind,))]
    LAYERS[f"MaxUnpool{n}d"] = [Layer((2,), {}, FUNCTIONS[f"max_unpool{n}d"][0].args[:2])]
    for pad in ("Zero", "Reflection", "Replication", "Circular"):
        LAYERS[f"{pad}Pad{n}d"] = [Layer(((1, 2, 0, 3, 2, 1)[: 2 * n],), {}, (kind,))]

DIFFERENT |= {
    **_each("Dropout Dropout1d Dropout2d Dropout3d", "random when training: own Philox stream"),
    **_each("AlphaDropout FeatureAlphaDropout", "random when training: own Philox stream"),
    **_each("ParameterList ParameterDict", "holds parameters only"),
    "CTCLoss": "the true gradient of log_probs; torch's presumes a log_softmax before it",
    "Hardsigmoid": "gradient 1/6 in float64, where torch rounds it to float32",
    "CosineSimilarity": "the gradient of norms below eps is that of the constant eps",
    "CELU": "gradient in float64, where torch rounds 1 / alpha to float32",
    "RReLU": "random when training: own seeded stream",
    "Module": "state_dict holds arrays",
    "LSTMCell": "also peephole= and coupled=",
    "LocalResponseNorm": "also within=",
}
# Containers and base classes: compared by the tests of this library, not by calls.
STRUCTURE = {
    "Module",
    "ModuleDict",
    "ModuleList",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "Sequential",
}
