// Max unpooling both ways (ops/pool.h).
//
// Method        the indices are checked first, all of them; then values go where they say.
// Partitioning  the check in ranges of indices, the rest plane by plane.
// Floor         two reads of the indices, one of x, one write of y.
#include "core/threads.h"
#include "cpu/simd.h"
#include "ops/instantiate.h"
#include "ops/pool.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::UnpoolArgs;

inline constexpr int64_t kChecked = 65536;  // indices a task

// Whether all indices are inside; *args.bad is the first that is not. In parallel as long as none
// is bad.
template <class T>
static bool indices_hold(const UnpoolArgs<T>& args) {
  bool bad = false;
  parallel_ranges(args.planes * args.in_size, kChecked, [&](int64_t begin, int64_t end) {
    const uint64_t size = static_cast<uint64_t>(args.out_size);
    uint64_t outside = 0;
    for (int64_t i = begin; i < end; ++i)
      outside |= static_cast<uint64_t>(args.index[i]) >= size ? 1 : 0;
    if (outside) __atomic_store_n(&bad, true, __ATOMIC_RELAXED);
  });
  *args.bad = __atomic_load_n(&bad, __ATOMIC_RELAXED) ? first_bad_index(args) : -1;
  return *args.bad < 0;
}

template <class T>
void max_unpool_fprop_indices(const UnpoolArgs<T>& args) {
  if (!indices_hold(args)) return;
  parallel_for(args.planes, [&](int64_t plane) {
    T* y = args.result + plane * args.out_size;
    for (int64_t i = 0; i < args.out_size; ++i) y[i] = 0;
    for (int64_t i = plane * args.in_size; i < (plane + 1) * args.in_size; ++i)
      y[args.index[i]] = args.source[i];
  });
}

template <class T>
void max_unpool_dgrad_indices(const UnpoolArgs<T>& args) {
  if (!indices_hold(args)) return;
  parallel_for(args.planes, [&](int64_t plane) {
    const T* grad_y = args.source + plane * args.out_size;
    for (int64_t i = plane * args.in_size; i < (plane + 1) * args.in_size; ++i)
      args.result[i] = grad_y[args.index[i]];
  });
}

LAMINA_INSTANTIATE(max_unpool_fprop_indices, UnpoolArgs)
LAMINA_INSTANTIATE(max_unpool_dgrad_indices, UnpoolArgs)

LAMINA_CPU_NAMESPACE_END
