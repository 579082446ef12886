// Sums of wgrad that were made in parts over the positions, added up in order.
#pragma once

#include "core/threads.h"
#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

// result[i] = sum over part of sums[part * size + i].
template <class T>
static void add_parts(const T* sums, int64_t parts, int64_t size, T* result) {
  parallel_ranges(size, int64_t{1} << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kLanes<T>) {
      Vec<T> sum = load_first(sums + i, end - i);
      for (int64_t part = 1; part < parts; ++part)
        sum += load_first(sums + part * size + i, end - i);
      store_first(result + i, end - i, sum);
    }
  });
}

LAMINA_CPU_NAMESPACE_END
