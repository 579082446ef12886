// Weight gradients over vectors of output channels: products of a transposed grad_y with factors
// broadcast from rows of x, for conv `direct` and `winograd4x1`.
#pragma once

#include "cpu/simd.h"
#include "shared/direct_blocks.h"

LAMINA_CPU_NAMESPACE_BEGIN

// sums[Count * Run][kLanes] += grad_y times x: segment i's tap j meets position q of the band at
// x[i][q + j]. Rows of `columns` positions lie `pitch` apart in x, one behind the other in grad_y.
template <class T, int Count, int Run>
[[gnu::noinline]] static void outer_sums(const T* const* x, const T* grad_y, int64_t rows,
                                         int64_t columns, int64_t pitch, T* sums) {
  Vec<T> sum[Count][Run] = {};
  const T* source[Count];
#pragma GCC unroll 16
  for (int i = 0; i < Count; ++i) source[i] = x[i];
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t q = row * pitch; q < row * pitch + columns; ++q, grad_y += kLanes<T>) {
      // Hides that the next position shares factors: kept in registers they would cost more moves
      // than the products cost loads.
      __asm__("" : "+r"(q));
      const Vec<T> factor = load(grad_y);
#pragma GCC unroll 16
      for (int i = 0; i < Count; ++i)
#pragma GCC unroll 8
        for (int j = 0; j < Run; ++j) sum[i][j] += source[i][q + j] * factor;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Count; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Run; ++j) {
      T* place = sums + (i * Run + j) * kLanes<T>;
      store(place, load(place) + sum[i][j]);
    }
}

template <class T, int Most, int Run>
static void all_segments(int64_t count, const T* const* x, const T* grad_y, int64_t rows,
                         int64_t columns, int64_t pitch, T* sums) {
  for (; count >= Most; count -= Most, x += Most, sums += Most * Run * kLanes<T>)
    outer_sums<T, Most, Run>(x, grad_y, rows, columns, pitch, sums);
  if constexpr (Most > 1)
    all_segments<T, Most / 2, Run>(count, x, grad_y, rows, columns, pitch, sums);
}

template <class T>
LAMINA_INLINE void fetch_into_l2(const T* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / static_cast<int64_t>(sizeof(T)))
    __builtin_prefetch(p + i, 0, 2);
}

// to[q][kLanes] = from[lane][q] of `lanes` planes plane_size apart; the other lanes are zero.
template <class T>
static void positions_first(const T* from, int64_t plane_size, int64_t lanes, int64_t positions,
                            T* to) {
  for (int64_t q = 0; q < positions; q += kLanes<T>) {
    Vec<T> square[kLanes<T>];
    for (int i = 0; i < kLanes<T>; ++i)
      square[i] = i < lanes ? load_first(from + i * plane_size + q, positions - q) : Vec<T>{};
    transpose<T>(square);
    for (int64_t i = 0; i < min_of<int64_t>(kLanes<T>, positions - q); ++i)
      store(to + (q + i) * kLanes<T>, square[i]);
  }
}

// The sums of `count` filter taps, square[tap][lane], to filters `step` apart; whether all are
// finite.
template <class T>
LAMINA_INLINE bool store_taps(Vec<T> (&square)[kLanes<T>], int64_t count, int64_t lanes, T* first,
                              int64_t step) {
  transpose<T>(square);
  Vec<T> finite = {};  // zero, or NaN
  for (int64_t k = 0; k < lanes; ++k) {
    store_first(first + k * step, count, square[k]);
    finite += square[k] - square[k];
  }
  return sum_lanes<T>(finite) == T(0);
}

LAMINA_CPU_NAMESPACE_END
