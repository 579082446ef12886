// Factors of a product in bfloat16 pieces, laid out for the units of cpu/amx.h and
// cpu/bf16_vectors.h.
//
//   x = h + m + l, each the bfloat16 nearest to what is left of x: three pieces hold all 24 bits
//
// A line is a row of the left factor or a column of the right one. 32 lines over a depth of k are
// split as [k / 32][piece][2 tiles]; a tile of the left factor is [16 lines][16 pairs of k], one of
// the right factor [16 pairs][16 lines].
#pragma once

#include "cpu/amx.h"
#include "cpu/bf16_vectors.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kSplitSide = 32, kSplitDepth = 32;  // of two tiles; k of a tile
inline constexpr int64_t kTileWords = kTileBytes / 4;

// Magnitudes of what was split, as bits: these are ordered as the numbers are. Zeros do not count.
struct Magnitudes {
  uint32_t largest = 0, least = ~0u;

  void merge(const Magnitudes& other) {
    largest = max_of(largest, other.largest), least = min_of(least, other.least);
  }
  float number(uint32_t bits) const {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }
  bool any() const { return largest > 0; }
};

// Whether no piece and no product of pieces, or sum of these, gets lost.
[[maybe_unused]] static bool keeps_all(const Magnitudes& a, const Magnitudes& b) {
  constexpr uint32_t kMost = (127u + 100) << 23, kLeast = (127u - 100) << 23;  // 2^100, 2^-100
  if (a.largest > kMost || b.largest > kMost) return false;
  if (!a.any() || !b.any()) return true;
  if (a.least < kLeast || b.least < kLeast) return false;
  return static_cast<double>(a.number(a.largest)) * b.number(b.largest) <= 0x1p96 &&
         static_cast<double>(a.number(a.least)) * b.number(b.least) >= 0x1p-96;
}

// Magnitudes while vectors come by.
class MagnitudeVectors {
 public:
  LAMINA_INLINE void see(Vec<float> x) {
    const Bits magnitude = reinterpret_cast<Bits>(x) & 0x7fffffff;
    largest_ = magnitude > largest_ ? magnitude : largest_;
    const Bits beyond = magnitude - 1;  // zero becomes the largest
    least_ = beyond < least_ ? beyond : least_;
  }
  void merge_into(Magnitudes& all) const {
    for (int i = 0; i < kLanes<float>; ++i)
      all.merge({largest_[i], least_[i] == ~0u ? ~0u : least_[i] + 1});
  }

 private:
  Bits largest_ = {}, least_ = ~Bits{};
};

// The pieces of pairs, those of `even` in the lower halves, the i-th at words[i * step].
template <class Unit, int Pieces>
LAMINA_INLINE void split_pairs(Vec<float> even, Vec<float> odd, uint32_t* words, int64_t step,
                               MagnitudeVectors& seen) {
  seen.see(even), seen.see(odd);
  if constexpr (Unit::kRounds) {
    const Bits both = Unit::nearest(even, odd);
    __builtin_memcpy(words, &both, sizeof both);
    return;
  }
#pragma GCC unroll 3
  for (int i = 0; i < Pieces; ++i) {
    const auto nearest = [](Vec<float> x) {  // bfloat16, ties to even, in the upper half
      const Bits bits = reinterpret_cast<Bits>(x);
      return (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
    };
    const Bits first = nearest(even), second = nearest(odd), both = (first >> 16) | second;
    __builtin_memcpy(words + i * step, &both, sizeof both);
    even -= reinterpret_cast<Vec<float>>(first), odd -= reinterpret_cast<Vec<float>>(second);
  }
}

// Words of a tile, columns to rows.
LAMINA_INLINE void transpose_words(const uint32_t* from, uint32_t* to) {
  constexpr int kSide = kLanes<float>;
  for (int64_t i = 0; i < 16; i += kSide)
    for (int64_t j = 0; j < 16; j += kSide) {
      Vec<float> square[kSide];
#pragma GCC unroll 16
      for (int line = 0; line < kSide; ++line)
        __builtin_memcpy(&square[line], from + (j + line) * 16 + i, sizeof square[line]);
      transpose<float>(square);
#pragma GCC unroll 16
      for (int line = 0; line < kSide; ++line)
        __builtin_memcpy(to + (i + line) * 16 + j, &square[line], sizeof square[line]);
    }
}

// Up to a vector of lines side by side, zero beyond `count`: the values of a line `step` apart,
// zero from `depth` on.
struct LinesAcross {
  const float* first;
  int64_t step, depth, count;
};
inline constexpr int kTileVectors = 16 / kLanes<float>;

// Words of one of the two tiles of every 32 of k.
template <class Unit, int Pieces, bool Left>
static void split_across(const LinesAcross (&lines)[kTileVectors], int64_t depth, uint32_t* words,
                         Magnitudes& all) {
  MagnitudeVectors seen;
  for (int64_t at = 0; at < depth; at += kSplitDepth, words += Pieces * 2 * kTileWords) {
    alignas(64) uint32_t tiles[Left ? Pieces * kTileWords : 1];
    for (int i = 0; i < kTileVectors; ++i) {
      const LinesAcross line = lines[i];
      const Lanes<float> lanes(0, line.count);
      uint32_t* to = (Left ? tiles : words) + i * kLanes<float>;
      const float* from = line.first + at * line.step;
      for (int64_t k = at; k < at + kSplitDepth; k += 2, to += 16, from += 2 * line.step)
        split_pairs<Unit, Pieces>(k < line.depth ? lanes.load(from) : Vec<float>{},
                                  k + 1 < line.depth ? lanes.load(from + line.step) : Vec<float>{},
                                  to, (Left ? 1 : 2) * kTileWords, seen);
    }
    for (int64_t piece = 0; Left && piece < Pieces; ++piece)
      transpose_words(tiles + piece * kTileWords, words + piece * 2 * kTileWords);
  }
  seen.merge_into(all);
}

// The same of up to 16 lines that are contiguous along k, `step` apart, zero beyond `count` of
// them and `extent` of k.
template <class Unit, int Pieces, bool Left>
static void split_along(const float* lines, int64_t step, int64_t count, int64_t extent,
                        int64_t depth, uint32_t* words, Magnitudes& all) {
  MagnitudeVectors seen;
  for (int64_t at = 0; at < depth; at += kSplitDepth, words += Pieces * 2 * kTileWords) {
    alignas(64) uint32_t tiles[Left ? 1 : Pieces * kTileWords];
    uint32_t* to = Left ? words : tiles;
    for (int64_t line = 0; line < 16; ++line, to += 16)
      for (int64_t i = 0; i < 16; i += kLanes<float>) {
        const int64_t k = at + 2 * i, some = line < count ? extent - k : 0;
        const float* from = lines + line * step + k;
        const Vec<float> low = load_first(from, some);
        const Vec<float> high = load_first(from + kLanes<float>, some - kLanes<float>);
        split_pairs<Unit, Pieces>(every_other<float, false>(low, high),
                                  every_other<float, true>(low, high), to + i,
                                  (Left ? 2 : 1) * kTileWords, seen);
      }
    for (int64_t piece = 0; !Left && piece < Pieces; ++piece)
      transpose_words(tiles + piece * kTileWords, words + piece * 2 * kTileWords);
  }
  seen.merge_into(all);
}

LAMINA_CPU_NAMESPACE_END
