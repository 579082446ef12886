// Max unpooling both ways (ops/pool.h).
//
// Method        values go where the indices say, each of which is looked at as it is used. A result
//               that goes past the caches is put together plane by plane in one first.
// Partitioning  plane by plane.
// Floor         one read of the indices and of x, one write of y.
#include "core/threads.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"
#include "ops/pool.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::UnpoolArgs;

inline constexpr int64_t kBuffered = int64_t{512} << 10;  // bytes of a plane that L2 holds

// Calls body(plane, use) for each plane; use(body) calls body(place, index) for its places and
// their indices, those that are inside. *args.bad is the first that is not, or -1.
template <class T, class Body>
static void for_each_index(const UnpoolArgs<T>& args, const Body& body) {
  bool bad = false;
  parallel_for(args.planes, [&](int64_t plane) {
    const uint64_t size = static_cast<uint64_t>(args.out_size);
    bool outside = false;
    body(plane, [&](const auto& take) {
      for (int64_t i = plane * args.in_size; i < (plane + 1) * args.in_size; ++i) {
        const uint64_t at = static_cast<uint64_t>(args.index[i]);
        if (at < size)
          take(i, at);
        else
          outside = true;
      }
    });
    if (outside) __atomic_store_n(&bad, true, __ATOMIC_RELAXED);
  });
  *args.bad = __atomic_load_n(&bad, __ATOMIC_RELAXED) ? first_bad_index(args) : -1;
}

template <class T>
void max_unpool_fprop_indices(const UnpoolArgs<T>& args) {
  const int64_t size = args.out_size, bytes = size * static_cast<int64_t>(sizeof(T));
  const bool streamed = is_streamed<T>(args.planes * size) && bytes <= kBuffered;
  for_each_index(args, [&](int64_t plane, const auto& use) {
    T* y = args.result + plane * size;
    Scratch<T> buffer(streamed ? size : 0);
    T* to = streamed ? buffer.get() : y;
    __builtin_memset(to, 0, static_cast<size_t>(bytes));
    use([&](int64_t i, uint64_t at) { to[at] = args.source[i]; });
    if (!streamed) return;
    write_line(y, size, true, [&](int64_t i, int64_t count) { return load_first(to + i, count); });
    finish_streams(true);
  });
}

template <class T>
void max_unpool_dgrad_indices(const UnpoolArgs<T>& args) {
  for_each_index(args, [&](int64_t plane, const auto& use) {
    const T* grad_y = args.source + plane * args.out_size;
    use([&](int64_t i, uint64_t at) { args.result[i] = grad_y[at]; });
  });
}

LAMINA_INSTANTIATE(max_unpool_fprop_indices, UnpoolArgs)
LAMINA_INSTANTIATE(max_unpool_dgrad_indices, UnpoolArgs)

LAMINA_CPU_NAMESPACE_END
