// The instructions of AVX512-BF16 on vectors: sums of 16 floats, each of which takes two products
// of bfloat16 at a time. Operands have the layout of tiles (cpu/amx.h).
//
// Numerics  An instruction adds the product of the odd elements, then that of the even ones, and
//           rounds to nearest even each time (Intel's manual; Zen 5 does the same). Subnormal
//           operands and results are flushed to zero.
// Floor     two instructions of 32 multiply-adds a cycle on Zen 5, twice the rate of FMA (implicit
//           GEMM of 3x3 filters reaches 0.8 of it); a block of 12 rows by two vectors loads 14
//           values for its 24 instructions.
//
// They are spelled out for the reason that those of tiles are, and so that the kernels for AVX-512
// can hold them on processors without.
#pragma once

#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

typedef uint32_t Bits __attribute__((vector_size(LAMINA_VECTOR_BYTES)));  // as many as floats

// Memory that a later block is split from: `count` pairs of cache lines, in runs of neighbours.
struct BlockAhead {
  const float* pair = nullptr;
  int64_t count = 0, run = 1, left = 1, skip = 0;  // pairs of a run, of this one; to the next one

  LAMINA_INLINE void fetch() {
    __builtin_prefetch(pair, 0, 2), __builtin_prefetch(pair + 16, 0, 2);
    pair += 32, --count;
    if (--left == 0) pair += skip, left = run;
  }
};

#if defined(__x86_64__) && defined(__AVX512F__)
class Bf16Vectors {
 public:
  static constexpr bool kRounds = true;
  // The nearest bfloat16, ties to even: those of `even` in the lower halves.
  LAMINA_INLINE static Bits nearest(Vec<float> even, Vec<float> odd) {
    typedef uint16_t Halves __attribute__((vector_size(LAMINA_VECTOR_BYTES)));
    Halves halves, order{};
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(halves) : "v"(even), "v"(odd));
    for (int i = 0; i < 32; ++i) order[i] = static_cast<uint16_t>(i / 2 + i % 2 * 16);
    return reinterpret_cast<Bits>(__builtin_shuffle(halves, order));
  }

  // c[rows][32], rows `pitch` apart, = or += (add) rows of a over `depth` of k times 32 columns of
  // b. Writes whole groups of rows: up to 32 of them. Fetches columns and others meanwhile.
  static void multiply(int64_t rows, int64_t depth, const uint32_t* a, const uint32_t* b, float* c,
                       int64_t pitch, bool add, BlockAhead columns, BlockAhead others) {
    for (int64_t r = 0; r < rows;) {
      BlockAhead& ahead = columns.count > 0 ? columns : others;
      if (rows - r > 8)
        product<12>(depth, a + r * 16, b, c + r * pitch, pitch, add, ahead), r += 12;
      else
        product<8>(depth, a + r * 16, b, c + r * pitch, pitch, add, ahead), r += 8;
    }
  }

 private:
  template <int Rows>
  [[gnu::noinline]] static void product(int64_t depth, const uint32_t* a, const uint32_t* b,
                                        float* c, int64_t pitch, bool add, BlockAhead& ahead) {
    constexpr int64_t kStep = 512;  // words of 32 lines by 32 of the depth
    Vec<float> sum[Rows][2] = {};
    BlockAhead fetched = ahead;
    for (; depth > 0; depth -= 32, a += kStep, b += kStep)
      for (int64_t pair = 0; pair < min_of<int64_t>((depth + 1) / 2, 16); ++pair) {
        if (fetched.count > 0) fetched.fetch();
        Bits right[2];
        __builtin_memcpy(&right[0], b + pair * 16, sizeof right[0]);
        __builtin_memcpy(&right[1], b + pair * 16 + kStep / 2, sizeof right[1]);
#pragma GCC unroll 12
        for (int i = 0; i < Rows; ++i) {
          const Bits left = a[i * 16 + pair] - Bits{};
#pragma GCC unroll 2
          for (int j = 0; j < 2; ++j)
            asm("vdpbf16ps %2, %1, %0" : "+v"(sum[i][j]) : "v"(left), "v"(right[j]));
        }
      }
    ahead = fetched;
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        float* place = c + i * pitch + j * 16;
        store(place, add ? load(place) + sum[i][j] : sum[i][j]);
      }
  }
};
#endif

LAMINA_CPU_NAMESPACE_END
