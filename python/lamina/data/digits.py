"""The handwritten digits that scikit-learn ships: 1,797 grey images of 8 x 8 pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Images [N, C, H, W] float32 in [0, 1] and labels [N] int64, for training and for testing."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def digits(test_fraction: float = 0.2, seed: int = 0) -> Split:
    """Alpaydin & Kaynak 1998 (UCI), shuffled by `seed` and split.

    Raises ValueError unless 0 < test_fraction < 1.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"digits: test_fraction must be between 0 and 1, got {test_fraction}")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    images = (bunch.images[order, None] / 16).astype(np.float32)
    labels = bunch.target[order].astype(np.int64)
    first = round(len(labels) * test_fraction)
    return Split(images[first:], labels[first:], images[:first], labels[:first])
