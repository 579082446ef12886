"""Loss layers: each holds the arguments of the function it calls.

size_average and reduce are torch's older spelling of `reduction`; class and positive weights are
buffers, as in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import functional as F
from ..tensor import Tensor
from .distance import PairwiseDistance
from .module import Module

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "GaussianNLLLoss",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
]


class _Loss(Module):
    """Calls `function(*inputs, reduction=..., **options)`; options are attributes."""

    function: Callable[..., Any]

    def __init__(self, size_average: Any, reduce: Any, reduction: str, /, **options: Any) -> None:
        super().__init__()
        if size_average is not None or reduce is not None:
            averaged = "mean" if size_average in (None, True) else "sum"
            reduction = averaged if reduce in (None, True) else "none"
        self.reduction = reduction
        self._options = tuple(options)
        for name, value in options.items():
            if name in ("weight", "pos_weight"):
                given = value if value is None or isinstance(value, Tensor) else Tensor(value)
                self.register_buffer(name, given)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Any) -> Any:
        options = {name: getattr(self, name) for name in self._options}
        return type(self).function(*inputs, reduction=self.reduction, **options)


class L1Loss(_Loss):
    """`functional.l1_loss`."""

    function = staticmethod(F.l1_loss)

    def __init__(
        self, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
    ) -> None:
        super().__init__(size_average, reduce, reduction)


class MSELoss(L1Loss):
    """`functional.mse_loss`."""

    function = staticmethod(F.mse_loss)


class SoftMarginLoss(L1Loss):
    """`functional.soft_margin_loss`."""

    function = staticmethod(F.soft_margin_loss)


class MultiLabelMarginLoss(L1Loss):
    """`functional.multilabel_margin_loss`."""

    function = staticmethod(F.multilabel_margin_loss)


class SmoothL1Loss(_Loss):
    """`functional.smooth_l1_loss`."""

    function = staticmethod(F.smooth_l1_loss)

    def __init__(
        self,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        beta: float = 1.0,
    ) -> None:
        super().__init__(size_average, reduce, reduction, beta=beta)


class HuberLoss(_Loss):
    """`functional.huber_loss`."""

    function = staticmethod(F.huber_loss)

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(None, None, reduction, delta=delta)


class KLDivLoss(_Loss):
    """`functional.kl_div`."""

    function = staticmethod(F.kl_div)

    def __init__(
        self,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        log_target: bool = False,
    ) -> None:
        super().__init__(size_average, reduce, reduction, log_target=log_target)


class BCELoss(_Loss):
    """`functional.binary_cross_entropy`."""

    function = staticmethod(F.binary_cross_entropy)

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction, weight=weight)


class MultiLabelSoftMarginLoss(BCELoss):
    """`functional.multilabel_soft_margin_loss`."""

    function = staticmethod(F.multilabel_soft_margin_loss)


class BCEWithLogitsLoss(_Loss):
    """`functional.binary_cross_entropy_with_logits`."""

    function = staticmethod(F.binary_cross_entropy_with_logits)

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
        pos_weight: Any = None,
    ) -> None:
        super().__init__(size_average, reduce, reduction, weight=weight, pos_weight=pos_weight)


class NLLLoss(_Loss):
    """`functional.nll_loss`."""

    function = staticmethod(F.nll_loss)

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction, weight=weight, ignore_index=ignore_index)


class CrossEntropyLoss(_Loss):
    """`functional.cross_entropy`."""

    function = staticmethod(F.cross_entropy)

    def __init__(
        self,
        weight: Any = None,
        size_average: Any = None,
        ignore_index: int = -100,
        reduce: Any = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            size_average,
            reduce,
            reduction,
            weight=weight,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
        )


class PoissonNLLLoss(_Loss):
    """`functional.poisson_nll_loss`."""

    function = staticmethod(F.poisson_nll_loss)

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: Any = None,
        eps: float = 1e-8,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction, log_input=log_input, full=full, eps=eps)


class GaussianNLLLoss(_Loss):
    """`functional.gaussian_nll_loss`: called with input, target and variance."""

    function = staticmethod(F.gaussian_nll_loss)

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(None, None, reduction, full=full, eps=eps)


class HingeEmbeddingLoss(_Loss):
    """`functional.hinge_embedding_loss`."""

    function = staticmethod(F.hinge_embedding_loss)

    def __init__(
        self,
        margin: float = 1.0,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction, margin=margin)


class MarginRankingLoss(_Loss):
    """`functional.margin_ranking_loss`: called with two inputs and the target."""

    function = staticmethod(F.margin_ranking_loss)

    def __init__(
        self,
        margin: float = 0.0,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction, margin=margin)


class CosineEmbeddingLoss(MarginRankingLoss):
    """`functional.cosine_embedding_loss`: called with two inputs and the target."""

    function = staticmethod(F.cosine_embedding_loss)


class MultiMarginLoss(_Loss):
    """`functional.multi_margin_loss`."""

    function = staticmethod(F.multi_margin_loss)

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Any = None,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction, p=p, margin=margin, weight=weight)


class TripletMarginLoss(_Loss):
    """`functional.triplet_margin_loss`: called with anchor, positive and negative."""

    function = staticmethod(F.triplet_margin_loss)

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: Any = None,
        reduce: Any = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(size_average, reduce, reduction, margin=margin, p=p, eps=eps, swap=swap)


class TripletMarginWithDistanceLoss(_Loss):
    """`functional.triplet_margin_with_distance_loss`: anchor, positive and negative."""

    function = staticmethod(F.triplet_margin_with_distance_loss)

    def __init__(
        self,
        *,
        distance_function: Callable[[Any, Any], Any] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        distance = PairwiseDistance() if distance_function is None else distance_function
        super().__init__(
            None, None, reduction, distance_function=distance, margin=margin, swap=swap
        )


class CTCLoss(_Loss):
    """`functional.ctc_loss`: called with log_probs, targets, input_lengths and target_lengths."""

    function = staticmethod(F.ctc_loss)

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(None, None, reduction, blank=blank, zero_infinity=zero_infinity)
