// What the passes of conv `gather_gemm` share: the tile of sums and the blocks of vectors.
#pragma once

#include "cpu/channels_last.h"
#include "cpu/tap_pairs.h"

LAMINA_CPU_NAMESPACE_BEGIN

// A tile of sums: kTileRows values are broadcast to up to kTileVectors vectors; 24 of 32 registers
// (AVX-512), 12 of 16 (AVX2), 8 of 16 (baseline).
inline constexpr int64_t kTileRows = kVectorBytes == 64 ? 8 : 4;
inline constexpr int64_t kTileVectors = kVectorBytes >= 32 ? 3 : 2;

// Channels in vectors, cut into blocks of one to kTileVectors.
struct VectorBlocks {
  int64_t vectors, count;

  LAMINA_INLINE explicit VectorBlocks(int64_t vectors)
      : vectors(vectors), count(ceil_div(vectors, kTileVectors)) {}
  LAMINA_INLINE int64_t first(int64_t block) const { return block * vectors / count; }
  LAMINA_INLINE int64_t size(int64_t block) const { return first(block + 1) - first(block); }
};

// body(constant) for the vectors of a block.
template <class Body>
LAMINA_INLINE void with_vectors(int64_t vectors, const Body& body) {
  if (vectors == 1) return body(std::integral_constant<int, 1>());
  if (vectors == 2) return body(std::integral_constant<int, 2>());
  if constexpr (kTileVectors > 2) body(std::integral_constant<int, 3>());
}

LAMINA_CPU_NAMESPACE_END
