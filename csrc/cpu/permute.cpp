// permute: y = x with its axes in another order (ops/permute.h).
//
// Method        rows of the result are read at one stride.
// Partitioning  groups of rows of about kTaskElements elements.
// Floor         one read and one write of the tensor.
#include "ops/permute.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::PermuteArgs;

inline constexpr int64_t kTaskElements = 16384;

template <class T>
void permute_fprop_copy(const PermuteArgs<T>& args) {
  const int64_t width = args.size[ops::kPermuteAxes - 1];
  const int64_t step = args.stride[ops::kPermuteAxes - 1];
  const int64_t grain = max_of<int64_t>(kTaskElements / max_of<int64_t>(width, 1), 1);
  parallel_ranges(args.rows(), grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const T* x = args.x + args.source(row);
      T* y = args.result + row * width;
      if (step == 1)
        __builtin_memcpy(y, x, sizeof(T) * width);
      else
        for (int64_t i = 0; i < width; ++i) y[i] = x[i * step];
    }
  });
}

LAMINA_INSTANTIATE(permute_fprop_copy, PermuteArgs)

LAMINA_CPU_NAMESPACE_END
