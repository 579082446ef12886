// Max unpooling both ways (ops/pool.h).
//
// Method        values go where the indices say, each of which is looked at as it is used. A result
//               that goes past the caches is put together plane by plane in one first. Gradients
//               lie where the hardware does not see them coming: they are asked for by indices
//               further on.
// Partitioning  plane by plane.
// Floor         one read of the indices and of x, one write of y.
#include "core/threads.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"
#include "ops/pool.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::UnpoolArgs;

inline constexpr int64_t kBuffered = int64_t{512} << 10;  // bytes of a plane that L2 holds

inline constexpr int64_t kFew = 8, kLater = 512;  // indices looked at together, and ahead

// Calls body(plane, use) for each plane; use(body) calls body(place, index) for its places and
// their indices, those that are inside. *args.bad is the first that is not, or -1. What the indices
// name of `wanted`, unless it is null, is fetched before.
template <class T, class Body>
static void for_each_index(const UnpoolArgs<T>& args, const T* wanted, const Body& body) {
  bool bad = false;
  parallel_for(args.planes, [&](int64_t plane) {
    const uint64_t size = static_cast<uint64_t>(args.out_size);
    const int64_t end = (plane + 1) * args.in_size;
    bool outside = false;
    body(plane, [&](const auto& take) {
      auto offer = [&](int64_t i, uint64_t at) {
        if (at < size)
          take(i, at);
        else
          outside = true;
      };
      int64_t i = plane * args.in_size;
      for (; i + kFew <= end; i += kFew) {  // nothing tells the compiler that y is no index
        uint64_t at[kFew];
        for (int64_t k = 0; k < kFew; ++k) at[k] = static_cast<uint64_t>(args.index[i + k]);
        __builtin_prefetch(args.index + i + 2 * kLater);
        if (const int64_t later = i + kLater; wanted && later < end) {
          const uint64_t there = static_cast<uint64_t>(args.index[later]);
          __builtin_prefetch(wanted + plane * args.out_size + (there < size ? there : 0));
        }
#pragma GCC unroll 8
        for (int64_t k = 0; k < kFew; ++k) offer(i + k, at[k]);
      }
      for (; i < end; ++i) offer(i, static_cast<uint64_t>(args.index[i]));
    });
    if (outside) __atomic_store_n(&bad, true, __ATOMIC_RELAXED);
  });
  *args.bad = __atomic_load_n(&bad, __ATOMIC_RELAXED) ? first_bad_index(args) : -1;
}

template <class T>
void max_unpool_fprop_indices(const UnpoolArgs<T>& args) {
  const int64_t size = args.out_size, bytes = size * static_cast<int64_t>(sizeof(T));
  const bool streamed = is_streamed<T>(args.planes * size) && bytes <= kBuffered;
  for_each_index<T>(args, nullptr, [&](int64_t plane, const auto& use) {
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
  for_each_index(args, args.source, [&](int64_t plane, const auto& use) {
    const T* grad_y = args.source + plane * args.out_size;
    use([&](int64_t i, uint64_t at) { args.result[i] = grad_y[at]; });
  });
}

LAMINA_INSTANTIATE(max_unpool_fprop_indices, UnpoolArgs)
LAMINA_INSTANTIATE(max_unpool_dgrad_indices, UnpoolArgs)

LAMINA_CPU_NAMESPACE_END
