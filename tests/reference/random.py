"""Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers:
as easy as 1, 2, 3"), and what Lamina draws from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Array

Words = NDArray[np.uint32]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85


def philox4x32(counter: ArrayLike, key: ArrayLike, rounds: int = 10) -> Words:
    """counter [..., 4] and key [2] of uint32 words to [..., 4] random uint32 words.

    A round maps (c0, c1, c2, c3) to (hi(m1 c2) ^ c1 ^ k0, lo(m1 c2), hi(m0 c0) ^ c3 ^ k1,
    lo(m0 c0)); the key grows by the Weyl constants between rounds.
    """
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter, np.uint64), -1, 0)
    k0, k1 = (int(k) for k in np.asarray(key, np.uint64))
    for _ in range(rounds):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)


def random_words(seed: int, offset: int, n: int) -> Words:
    """n uint32 words: word i is lane i mod 4 of the 64-bit counter i // 4 + offset.

    The counter fills words 0 (low) and 1 (high), words 2 and 3 are 0; the key is seed likewise.
    """
    blocks = np.arange(-(-n // 4), dtype=np.uint64) + np.uint64(offset % 2**64)
    zero = np.zeros_like(blocks)
    counter = np.stack([blocks & _LOW, blocks >> _HALF, zero, zero], -1)
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    return philox4x32(counter, key).reshape(-1)[:n]


def uniform(seed: int, offset: int, n: int) -> Array:
    """n numbers in [0, 1): the upper 24 bits of each word times 2^-24, exact in float32."""
    return (random_words(seed, offset, n) >> np.uint32(8)) * 2.0**-24


def dropout_mask(seed: int, offset: int, n: int, p: float) -> NDArray[np.bool_]:
    """True (keep) where uniform >= p: dropped with probability p."""
    return uniform(seed, offset, n) >= p
