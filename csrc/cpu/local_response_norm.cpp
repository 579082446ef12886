// local_response_norm: window sums one axis at a time (ops/local_response_norm.h).
//
// Method        across channels: the window's squares are added in registers, from rows that are in
//               L1. Within maps: a slab's squares in scratch; each axis adds shifted rows. window -
//               1 adds an element (a running sum would carry NaN, Inf and rounding along the axis).
//               d^-beta as exp(-beta log d); the gradient computes d again.
// Partitioning  slabs; across channels blocks of kColumns columns.
// Numerics      sums in window order; a power errs by a few eps times 1 + |beta log d|.
// Floor         one read of x (and of grad_y), one write of the result; some 50 operations a vector
//               for the power.
#include "ops/local_response_norm.h"

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::LocalResponseNormArgs;

inline constexpr int64_t kColumns = 2048;
inline constexpr int64_t kRowsAhead = 3;  // fetched: the hardware does not see rows coming

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
static T* box_sums(const LocalResponseNormArgs<T>& args, bool holding, T* a, T* b) {
  const int64_t* size = args.size;
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

// The sums of squares over the windows of a slab, in `a` or `b`.
template <class T>
static T* square_sums(const LocalResponseNormArgs<T>& args, const T* x, T* a, T* b) {
  along_line<T>(args.slab(), [&](int64_t i, int64_t count) {
    const Vec<T> v = load_first(x + i, count);
    store_first<T>(a + i, count, v * v);
  });
  return box_sums(args, false, a, b);
}

// Whether windows lie across the outermost axis alone: channels.
template <class T>
static bool across_rows(const LocalResponseNormArgs<T>& args) {
  return args.window[1] == 1 && args.window[2] == 1;
}

// Calls body(slab, first column, width) for the blocks of columns.
template <class T, class Body>
static void for_each_columns(const LocalResponseNormArgs<T>& args, const Body& body) {
  const int64_t inner = args.size[1] * args.size[2], blocks = ceil_div(inner, kColumns);
  parallel_for(args.slabs * blocks, [&](int64_t task) {
    const int64_t first = task % blocks * kColumns;
    body(task / blocks * args.slab(), first, min_of(kColumns, inner - first));
  });
}

// The sum of value(row) over the window of `row`, cut at the ends.
template <class T, class Value>
LAMINA_INLINE Vec<T> across_window(int64_t row, int64_t rows, int64_t before, int64_t after,
                                   const Value& value) {
  Vec<T> sum = {};
  const int64_t last = min_of(row + after, rows - 1);
  for (int64_t r = max_of<int64_t>(row - before, 0); r <= last; ++r) sum += value(r);
  return sum;
}

// k + alpha * the sum of squares: a vector of a row.
template <class T>
LAMINA_INLINE Vec<T> scale_across(const LocalResponseNormArgs<T>& args, const T* column,
                                  int64_t row, int64_t count) {
  const int64_t pitch = args.size[1] * args.size[2];
  const int64_t before = args.window[0] / 2, after = (args.window[0] - 1) / 2;
  __builtin_prefetch(column + (row + after + kRowsAhead) * pitch);
  const Vec<T> squares = across_window<T>(row, args.size[0], before, after, [&](int64_t r) {
    const Vec<T> x = load_first(column + r * pitch, count);
    return x * x;
  });
  return args.k + args.alpha * squares;
}

template <class T>
static void fprop_across(const LocalResponseNormArgs<T>& args) {
  const int64_t rows = args.size[0], pitch = args.size[1] * args.size[2];
  const bool streamed = is_streamed<T>(args.slabs * args.slab());
  for_each_columns(args, [&](int64_t slab, int64_t first, int64_t width) {
    const T* x = args.x + slab + first;
    for (int64_t row = 0; row < rows; ++row)
      write_line(args.result + slab + row * pitch + first, width, streamed,
                 [&](int64_t j, int64_t count) {
                   const Vec<T> d = scale_across(args, x + j, row, count);
                   return load_first(x + row * pitch + j, count) * power<T>(d, -args.beta);
                 });
    finish_streams(streamed);
  });
}

template <class T>
static void dgrad_across(const LocalResponseNormArgs<T>& args) {
  const int64_t rows = args.size[0], pitch = args.size[1] * args.size[2];
  const int64_t before = args.window[0] / 2, after = (args.window[0] - 1) / 2;
  const bool streamed = is_streamed<T>(args.slabs * args.slab());
  const T factor = 2 * args.alpha * args.beta;
  for_each_columns(args, [&](int64_t slab, int64_t first, int64_t width) {
    const T* x = args.x + slab + first;
    const int64_t room = ceil_div(width, kLanes<T>) * kLanes<T>;
    Scratch<T> own(rows * room + kLanes<T>), terms(rows * room + kLanes<T>);
    for (int64_t row = 0; row < rows; ++row)
      along_line<T>(width, [&](int64_t j, int64_t count) {
        const int64_t at = row * pitch + j;
        const T* grad_y = args.grad_y + slab + first + at;
        __builtin_prefetch(grad_y + kRowsAhead * pitch);
        const Vec<T> d = scale_across(args, x + j, row, count);
        const Vec<T> passed = load_first(grad_y, count) * power<T>(d, -args.beta);
        store(&own[row * room + j], passed);
        store<T>(&terms[row * room + j], passed * load_first(x + at, count) / d);
      });
    for (int64_t row = 0; row < rows; ++row)  // the windows that hold the row: the other way round
      write_line(args.result + slab + row * pitch + first, width, streamed,
                 [&](int64_t j, int64_t count) -> Vec<T> {
                   const Vec<T> sums = across_window<T>(row, rows, after, before, [&](int64_t r) {
                     return load(&terms[r * room + j]);
                   });
                   const Vec<T> others = load_first(x + row * pitch + j, count) * sums;
                   return load(&own[row * room + j]) - factor * others;
                 });
    finish_streams(streamed);
  });
}

template <class T>
void local_response_norm_fprop_windows(const LocalResponseNormArgs<T>& args) {
  if (across_rows(args)) return fprop_across(args);
  const int64_t size = args.slab();
  parallel_for(args.slabs, [&](int64_t slab) {
    const T* x = args.x + slab * size;
    Scratch<T> a(size), b(size);
    const T* sums = square_sums(args, x, a.get(), b.get());
    along_line<T>(size, [&](int64_t i, int64_t count) {
      const Vec<T> d = args.k + args.alpha * load_first(sums + i, count);
      store_first<T>(args.result + slab * size + i, count,
                     load_first(x + i, count) * power<T>(d, -args.beta));
    });
  });
}

template <class T>
void local_response_norm_dgrad_windows(const LocalResponseNormArgs<T>& args) {
  if (across_rows(args)) return dgrad_across(args);
  const int64_t size = args.slab();
  parallel_for(args.slabs, [&](int64_t slab) {
    const T* x = args.x + slab * size;
    Scratch<T> a(size), b(size), own(size);
    T* terms = square_sums(args, x, a.get(), b.get());
    along_line<T>(size, [&](int64_t i, int64_t count) {
      const Vec<T> d = args.k + args.alpha * load_first(terms + i, count, T(1));
      const Vec<T> passed =
          load_first(args.grad_y + slab * size + i, count) * power<T>(d, -args.beta);
      store_first<T>(&own[i], count, passed);
      store_first<T>(terms + i, count, passed * load_first(x + i, count) / d);
    });
    const T* sums = box_sums(args, true, terms, terms == a.get() ? b.get() : a.get());
    const T factor = 2 * args.alpha * args.beta;
    along_line<T>(size, [&](int64_t i, int64_t count) {
      const Vec<T> others = load_first(x + i, count) * load_first(sums + i, count);
      store_first<T>(args.result + slab * size + i, count,
                     load_first(&own[i], count) - factor * others);
    });
  });
}

LAMINA_INSTANTIATE(local_response_norm_fprop_windows, LocalResponseNormArgs)
LAMINA_INSTANTIATE(local_response_norm_dgrad_windows, LocalResponseNormArgs)

LAMINA_CPU_NAMESPACE_END
