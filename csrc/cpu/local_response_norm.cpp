// local_response_norm: window sums one axis at a time (ops/local_response_norm.h).
//
// Method        a slab's squares in scratch; each axis adds shifted rows, window - 1 adds an
//               element (a running sum would carry NaN, Inf and rounding along the axis). d^-beta
//               as exp(-beta log d); the gradient computes d again.
// Partitioning  slabs; across channels also blocks of kColumns columns.
// Numerics      sums in window order; a power errs by a few eps times 1 + |beta log d|.
#include "ops/local_response_norm.h"

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::LocalResponseNormArgs;

inline constexpr int64_t kColumns = 256;

// A block of a slab: all rows, columns [first, first + width).
struct Block {
  int64_t slab, first, rows, width;
};

template <class T, class Body>
static void for_each_block(const LocalResponseNormArgs<T>& args, const Body& body) {
  const int64_t columns = args.window[2] == 1 ? kColumns : max_of<int64_t>(args.size[2], 1);
  const int64_t blocks = ceil_div(args.size[2], columns), rows = args.size[0] * args.size[1];
  parallel_for(args.slabs * blocks, [&](int64_t task) {
    const int64_t first = task % blocks * columns;
    body(Block{task / blocks * args.slab(), first, rows, min_of(columns, args.size[2] - first)});
  });
}

// to[i] = sum of from[i - before] .. from[i + after] along one axis of [outer][n][inner], in order.
template <class T>
static void window_sums(int64_t outer, int64_t n, int64_t inner, int64_t before, int64_t after,
                        const T* from, T* to) {
  for (int64_t o = 0; o < outer; ++o, from += n * inner, to += n * inner) {
    for (int64_t i = 0; i < n * inner; ++i) to[i] = 0;
    for (int64_t shift = -before; shift <= after; ++shift) {
      const int64_t low = max_of<int64_t>(-shift, 0) * inner;
      const int64_t high = min_of(n, n - shift) * inner;
      for (int64_t i = low; i < high; ++i) to[i] += from[i + shift * inner];
    }
  }
}

// Sums over the window of all axes; the result is in `a` or `b`, which one is returned.
template <class T>
static T* box_sums(const LocalResponseNormArgs<T>& args, int64_t width, bool holding, T* a, T* b) {
  const int64_t size[3] = {args.size[0], args.size[1], width};
  int64_t outer = 1;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t inner = axis == 0 ? size[1] * size[2] : axis == 1 ? size[2] : 1;
    const int64_t before = args.window[axis] / 2, after = (args.window[axis] - 1) / 2;
    if (args.window[axis] > 1) {
      window_sums(outer, size[axis], inner, min_of(holding ? after : before, size[axis]),
                  min_of(holding ? before : after, size[axis]), a, b);
      T* done = b;
      b = a, a = done;
    }
    outer *= size[axis];
  }
  return a;
}

template <class T>
LAMINA_INLINE Vec<T> power(Vec<T> d, T exponent) {
  return exp<T>(exponent * log<T>(d));
}

// Calls body(position in the scratch, in the tensor, count) for the vectors of a block.
template <class T, class Body>
LAMINA_INLINE void for_each_vector(const LocalResponseNormArgs<T>& args, const Block& block,
                                   const Body& body) {
  for (int64_t row = 0; row < block.rows; ++row)
    for (int64_t j = 0; j < block.width; j += kLanes<T>)
      body(row * block.width + j, block.slab + row * args.size[2] + block.first + j,
           min_of<int64_t>(kLanes<T>, block.width - j));
}

// The sums of squares over the windows of a block, in `a` or `b`.
template <class T>
static T* square_sums(const LocalResponseNormArgs<T>& args, const Block& block, T* a, T* b) {
  for_each_vector(args, block, [&](int64_t place, int64_t at, int64_t count) {
    const Vec<T> x = load_first(args.x + at, count);
    store_first<T>(a + place, count, x * x);
  });
  return box_sums(args, block.width, false, a, b);
}

template <class T>
void local_response_norm_fprop_windows(const LocalResponseNormArgs<T>& args) {
  for_each_block(args, [&](const Block& block) {
    Scratch<T> a(block.rows * block.width), b(block.rows * block.width);
    const T* sums = square_sums(args, block, a.get(), b.get());
    for_each_vector(args, block, [&](int64_t place, int64_t at, int64_t count) {
      const Vec<T> d = args.k + args.alpha * load_first(sums + place, count);
      store_first<T>(args.result + at, count,
                     load_first(args.x + at, count) * power<T>(d, -args.beta));
    });
  });
}

template <class T>
void local_response_norm_dgrad_windows(const LocalResponseNormArgs<T>& args) {
  for_each_block(args, [&](const Block& block) {
    const int64_t size = block.rows * block.width;
    Scratch<T> a(size), b(size), own(size);
    T* terms = square_sums(args, block, a.get(), b.get());
    for_each_vector(args, block, [&](int64_t place, int64_t at, int64_t count) {
      const Vec<T> d = args.k + args.alpha * load_first(terms + place, count, T(1));
      const Vec<T> passed = load_first(args.grad_y + at, count) * power<T>(d, -args.beta);
      store_first<T>(&own[place], count, passed);
      store_first<T>(terms + place, count, passed * load_first(args.x + at, count) / d);
    });
    const T* sums = box_sums(args, block.width, true, terms, terms == a.get() ? b.get() : a.get());
    const T factor = 2 * args.alpha * args.beta;
    for_each_vector(args, block, [&](int64_t place, int64_t at, int64_t count) {
      const Vec<T> others = load_first(args.x + at, count) * load_first(sums + place, count);
      store_first<T>(args.result + at, count, load_first(&own[place], count) - factor * others);
    });
  });
}

LAMINA_INSTANTIATE(local_response_norm_fprop_windows, LocalResponseNormArgs)
LAMINA_INSTANTIATE(local_response_norm_dgrad_windows, LocalResponseNormArgs)

LAMINA_CPU_NAMESPACE_END
