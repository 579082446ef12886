// dropout from a counter-based generator (ops/dropout.h).
//
// Method        a counter a 64-bit lane, whose 32-bit products are single instructions; the words
// of
//               a group of rows first, then the elements.
// Partitioning  groups of about kTaskElements elements.
// Floor         one read and one write of the tensor; the words cost 20 products for 4 rows.
#include "ops/dropout.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"
#include "shared/philox.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::DropoutArgs;

inline constexpr int64_t kTaskElements = 16384, kGroup = 256;  // kGroup rows, a multiple of 4

typedef uint64_t Counters __attribute__((vector_size(LAMINA_VECTOR_BYTES)));
inline constexpr int64_t kCounters = LAMINA_VECTOR_BYTES / 8;

// The products of the lower 32 bits.
LAMINA_INLINE Counters product(Counters a, uint32_t factor) {
  const Counters b = Counters{} + factor;
#if defined(__AVX512F__)  // GCC 12 warns without a mask
  return (Counters)_mm512_maskz_mul_epu32(__mmask8(-1), (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Counters)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (a & 0xFFFFFFFF) * b;
#endif
}

// The words of kCounters counters in the order of the stream. philox::block with a counter a lane;
// what the upper halves of the lanes hold is never read.
LAMINA_INLINE void draw_words(uint64_t seed, uint64_t counter, uint32_t* words) {
  Counters c0 = Counters{} + counter;
  for (int i = 0; i < kCounters; ++i) c0[i] += static_cast<uint64_t>(i);
  Counters c1 = c0 >> 32, c2 = {}, c3 = {};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const Counters p0 = product(c0, 0xD2511F53), p1 = product(c2, 0xCD9E8D57);
    c0 = (p1 >> 32) ^ c1 ^ k0, c1 = p1;
    c2 = (p0 >> 32) ^ c3 ^ k1, c3 = p0;
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  const Counters low = (c0 & 0xFFFFFFFF) | c1 << 32, high = (c2 & 0xFFFFFFFF) | c3 << 32;
  const Vec<double> ordered[2] = {interleave<double, false>((Vec<double>)low, (Vec<double>)high),
                                  interleave<double, true>((Vec<double>)low, (Vec<double>)high)};
  __builtin_memcpy(words, ordered, sizeof ordered);
}

// The words of rows [row, row + kGroup); row is a multiple of 4.
template <class T>
static void draw(const DropoutArgs<T>& args, int64_t row, uint32_t* words) {
  for (int64_t j = 0; j < kGroup; j += 4 * kCounters)
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
