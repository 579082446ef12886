// dropout from a counter-based generator (ops/dropout.h).
//
// Method        a counter a 64-bit lane, whose 32-bit products are single instructions; the words
//               of a group of rows first, then the elements.
// Partitioning  groups of about kTaskElements elements.
// Floor         one read and one write of the tensor; the words of 4 rows take 19 products: 33
//               instructions a vector of words, 8 cycles where four start in one.
#include "ops/dropout.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"
#include "shared/philox.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::DropoutArgs;

inline constexpr int64_t kTaskElements = 16384, kGroup = 128;  // kGroup rows, a multiple of 4

typedef uint64_t Counters __attribute__((vector_size(LAMINA_VECTOR_BYTES)));
inline constexpr int64_t kCounters = LAMINA_VECTOR_BYTES / 8;
inline constexpr uint32_t kFactor0 = 0xD2511F53, kFactor1 = 0xCD9E8D57;

// The products of the lower 32 bits.
LAMINA_INLINE Counters product(Counters a, uint32_t factor) {
  const Counters b = Counters{} + factor;
#if defined(__AVX512F__)  // GCC 12 warns without a mask
  return (Counters)_mm512_maskz_mul_epu32(__mmask8(-1), (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Counters)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return (Counters)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFF) * b;
#endif
}

// The upper halves of the lanes come to the lower ones; what comes to the upper ones is never read.
LAMINA_INLINE Counters upper_halves(Counters a) {
#if defined(__AVX512F__)  // not a shift, for which there are two units only, as for products
  return (Counters)_mm512_maskz_movehdup_ps(__mmask16(-1), (__m512)a);
#else
  return a >> 32;
#endif
}

// b's lower halves over those of a.
LAMINA_INLINE Counters lower_halves(Counters a, Counters b) {
#if defined(__AVX512F__)
  return (Counters)_mm512_mask_moveldup_ps((__m512)a, __mmask16(0xAAAA), (__m512)b);
#else
  return (a & 0xFFFFFFFF) | b << 32;
#endif
}

// Lanes `from`, 2 + from, ... of a and b in turn, which takes no permutation across the register;
// and the lanes' numbers for which these pairs come in order.
LAMINA_INLINE Counters every_other_pair(Counters a, Counters b, uint64_t from) {
  Counters order{};
  for (int64_t i = 0; i < kCounters; ++i)
    order[i] = static_cast<uint64_t>(i / 2 * 2 + i % 2 * kCounters) + from;
  return __builtin_shuffle(a, b, order);
}
LAMINA_INLINE Counters lanes_in_turn() {
  Counters lanes{};
  for (int64_t i = 0; i < kCounters; ++i)
    lanes[i] = static_cast<uint64_t>(i / 2 + i % 2 * (kCounters / 2));
  return lanes;
}

// The words of kVectors kCounters counters in the order of the stream: philox::block with a counter
// a lane. A round waits for the one before: vectors take turns, as many as registers hold.
inline constexpr int kVectors = LAMINA_VECTOR_BYTES == 64 ? 4 : 2;
LAMINA_INLINE void draw_words(uint64_t seed, uint64_t counter, uint32_t* words) {
  Counters c0[kVectors], c1[kVectors], c2[kVectors], c3[kVectors];
  const Counters lanes = lanes_in_turn();
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const Counters c = counter + static_cast<uint64_t>(v * kCounters) + lanes;
    const Counters p = product(c, kFactor0);  // the other product is 0 in the first round
    c0[v] = upper_halves(c) ^ k0, c1[v] = Counters{};
    c2[v] = upper_halves(p) ^ k1, c3[v] = p;
  }
#pragma GCC unroll 9
  for (int round = 1; round < 10; ++round) {
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const Counters p0 = product(c0[v], kFactor0), p1 = product(c2[v], kFactor1);
      c0[v] = upper_halves(p1) ^ c1[v] ^ k0, c1[v] = p1;
      c2[v] = upper_halves(p0) ^ c3[v] ^ k1, c3[v] = p0;
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const Counters low = lower_halves(c0[v], c1[v]), high = lower_halves(c2[v], c3[v]);
    const Counters ordered[2] = {every_other_pair(low, high, 0), every_other_pair(low, high, 1)};
    __builtin_memcpy(words + v * 4 * kCounters, ordered, sizeof ordered);
  }
}

// The words of rows [row, row + kGroup); row is a multiple of 4.
template <class T>
static void draw(const DropoutArgs<T>& args, int64_t row, uint32_t* words) {
  for (int64_t j = 0; j < kGroup; j += 4 * kVectors * kCounters)
    draw_words(args.seed, args.offset + static_cast<uint64_t>((row + j) / 4), words + j);
}

// Rows of one element; vectors of words may be read beyond `count`.
template <class T>
static void drop_elements(const DropoutArgs<T>& args, const uint32_t* words, const T* x, T* y,
                          int64_t count, bool streamed) {
  typedef uint32_t Words __attribute__((vector_size(kLanes<T> * sizeof(uint32_t))));
  const LaneInteger<T> threshold = static_cast<LaneInteger<T>>(args.threshold);
  const Vec<T> scale = broadcast<T>(args.scale), nothing = {};
  const Vec<T> shift = broadcast<T>(args.shift), dropped = broadcast<T>(args.dropped);
  write_line(y, count, streamed, [&](int64_t i, int64_t some) {
    Words drawn;
    __builtin_memcpy(&drawn, words + i, sizeof drawn);
    const Mask<T> keep = __builtin_convertvector(drawn >> 8, Mask<T>) >= threshold;
    __builtin_prefetch(x + 4 * kGroup + i);  // four groups of words later
    return load_first(x + i, some) * (keep ? scale : nothing) + (keep ? shift : dropped);
  });
}

template <class T>
void dropout_fprop_philox(const DropoutArgs<T>& args) {
  const int64_t groups =
      max_of<int64_t>(kTaskElements / (kGroup * max_of<int64_t>(args.inner, 1)), 1);
  const bool streamed = is_streamed<T>(args.rows * args.inner) && args.result != args.x;
  parallel_ranges(args.rows, groups * kGroup, [&](int64_t begin, int64_t end) {
    alignas(64) uint32_t words[kGroup + kLanes<T>];
    for (int64_t row = begin; row < end; row += kGroup) {
      draw(args, row, words);
      const int64_t count = min_of(kGroup, end - row);
      const T* x = args.x + row * args.inner;
      T* y = args.result + row * args.inner;
      if (args.inner == 1) {
        drop_elements(args, words, x, y, count, streamed);
        continue;
      }
      for (int64_t j = 0; j < count; ++j, x += args.inner, y += args.inner) {
        const bool keep = philox::uniform24(words[j]) >= args.threshold;
        const T factor = keep ? args.scale : T(0), shift = keep ? args.shift : args.dropped;
        for (int64_t i = 0; i < args.inner; ++i) y[i] = x[i] * factor + shift;
      }
    }
    finish_streams(streamed);
  });
}

LAMINA_INSTANTIATE(dropout_fprop_philox, DropoutArgs)

LAMINA_CPU_NAMESPACE_END
