"""Connectionist temporal classification (Graves et al. 2006, section 4.1), in log space."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, real, reduce_loss


def _sequence_loss(log_probs: Array, target: Array, blank: int) -> float:
    """-log p(target | log_probs [T, C]) by the forward recursion.

    Labels with a blank around each: l = (b, t0, b, t1, ..., b).
    alpha[t, s] = (alpha[t-1, s] + alpha[t-1, s-1] + alpha[t-1, s-2]) p[t, l_s], the last term only
    where l_s is no blank and differs from l_{s-2}.
    """
    labels = np.full(2 * len(target) + 1, blank)
    labels[1::2] = target
    skip = np.zeros(len(labels), bool)
    skip[2:] = (labels[2:] != blank) & (labels[2:] != labels[:-2])
    # Before the first step all mass is on a start state just left of the first blank.
    alpha = np.full(len(labels), -np.inf)
    for t, row in enumerate(log_probs):
        stay = alpha if t else np.where(np.arange(len(labels)) == 0, 0.0, -np.inf)
        one = np.concatenate([[-np.inf], stay[:-1]])
        two = np.where(
            skip, np.concatenate([[-np.inf, -np.inf], stay[:-2]])[: len(labels)], -np.inf
        )
        alpha = np.logaddexp(np.logaddexp(stay, one), two) + row[labels]
    if len(log_probs) == 0:
        return 0.0 if len(target) == 0 else np.inf
    return -float(np.logaddexp.reduce(alpha[-2:]))


def ctc_loss(
    log_probs: ArrayLike,
    targets: ArrayLike,
    input_lengths: ArrayLike,
    target_lengths: ArrayLike,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Array:
    """log_probs [T, N, C] or [T, C]; targets [N, S] or concatenated [sum(target_lengths)].

    'mean' divides each loss by its target length (at least 1) before the mean over the batch.
    """
    x = real(log_probs)
    single = x.ndim == 2
    x = x[:, None] if single else x
    steps, lengths = np.atleast_1d(input_lengths), np.atleast_1d(target_lengths)
    targets = np.asarray(targets)
    if targets.ndim == 1:
        rows = np.split(targets, np.cumsum(lengths)[:-1])
    else:
        rows = list(targets)
    loss = np.array(
        [_sequence_loss(x[: steps[n], n], rows[n][: lengths[n]], blank) for n in range(x.shape[1])]
    )
    if zero_infinity:
        loss = np.where(np.isinf(loss), 0.0, loss)
    if reduction == "mean":
        return (loss / np.maximum(lengths, 1)).mean()
    return reduce_loss(loss[0] if single else loss, reduction)
