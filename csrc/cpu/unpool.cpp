// Max unpooling both ways (ops/pool.h).
//
// Method        values go where the indices say, each of which is looked at as it is used. A result
//               that goes past the caches is put together in one first: forward plane by plane,
//               gradients a chunk at a time. These come from all over a plane in about its order,
//               which the hardware does not see: the plane is asked for at the indices' pace.
// Partitioning  plane by plane.
// Floor         one read of the indices and of x, one write of y.
#include "core/threads.h"
#include "cpu/scratch.h"
#include "ops/instantiate.h"
#include "ops/pool.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::UnpoolArgs;

inline constexpr int64_t kBuffered = int64_t{512} << 10;  // bytes of a plane that L2 holds

inline constexpr int64_t kChunk = 2048;            // gradients put together
inline constexpr int64_t kFew = 8, kLater = 1024;  // indices looked at together, and ahead
inline constexpr int64_t kAhead = 8192;  // bytes of the plane, asked for some places at a time
inline constexpr int64_t kSome = 64, kMostPace = 16;

// Calls body(plane, use) for each plane; use(begin, end, body) calls body(place, index) for these
// places and their indices, those that are inside. *args.bad is the first that is not, or -1.
template <class T, class Body>
static void for_each_index(const UnpoolArgs<T>& args, const Body& body) {
  bool bad = false;
  parallel_for(args.planes, [&](int64_t plane) {
    const uint64_t size = static_cast<uint64_t>(args.out_size);
    bool outside = false;
    body(plane, [&](int64_t i, int64_t end, const auto& take) {
      auto offer = [&](int64_t i, uint64_t at) {
        if (at < size)
          take(i, at);
        else
          outside = true;
      };
      for (; i + kFew <= end; i += kFew) {  // nothing tells the compiler that y is no index
        uint64_t at[kFew];
        for (int64_t k = 0; k < kFew; ++k) at[k] = static_cast<uint64_t>(args.index[i + k]);
        __builtin_prefetch(args.index + i + kLater);
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
  for_each_index<T>(args, [&](int64_t plane, const auto& use) {
    T* y = args.result + plane * size;
    Scratch<T> buffer(streamed ? size : 0);
    T* to = streamed ? buffer.get() : y;
    __builtin_memset(to, 0, static_cast<size_t>(bytes));
    use(plane * args.in_size, (plane + 1) * args.in_size,
        [&](int64_t i, uint64_t at) { to[at] = args.source[i]; });
    if (!streamed) return;
    write_line(y, size, true, [&](int64_t i, int64_t count) { return load_first(to + i, count); });
    finish_streams(true);
  });
}

template <class T>
void max_unpool_dgrad_indices(const UnpoolArgs<T>& args) {
  const bool streamed = is_streamed<T>(args.planes * args.in_size);
  const int64_t pace = args.out_size / max_of<int64_t>(args.in_size, 1);
  for_each_index<T>(args, [&](int64_t plane, const auto& use) {
    const T* grad_y = args.source + plane * args.out_size;
    const T* ahead = grad_y + kAhead / static_cast<int64_t>(sizeof(T));
    Scratch<T> buffer(streamed ? kChunk : 0);
    const int64_t first = plane * args.in_size, last = first + args.in_size;
    for (int64_t begin = first; begin < last; begin += kChunk) {
      const int64_t count = min_of(kChunk, last - begin);
      T* to = streamed ? buffer.get() : args.result + begin;
      for (int64_t i = begin; i < begin + count; i += kSome) {
        if (pace <= kMostPace) prefetch_line(ahead + (i - first) * pace, kSome * pace);
        use(i, min_of(i + kSome, begin + count),
            [&](int64_t k, uint64_t at) { to[k - begin] = grad_y[at]; });
      }
      if (!streamed) continue;
      write_line(args.result + begin, count, true,
                 [&](int64_t i, int64_t n) { return load_first(to + i, n); });
    }
    finish_streams(streamed);
  });
}

LAMINA_INSTANTIATE(max_unpool_fprop_indices, UnpoolArgs)
LAMINA_INSTANTIATE(max_unpool_dgrad_indices, UnpoolArgs)

LAMINA_CPU_NAMESPACE_END
