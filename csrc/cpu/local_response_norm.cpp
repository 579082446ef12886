// local_response_norm: window sums one axis at a time (ops/local_response_norm.h).
//
// Method        across channels: the window's squares are added in registers, from rows that are in
//               L1; of the gradient's terms a window of rows is kept. Within maps: a slab's squares
//               in scratch; each axis adds shifted rows. window - 1 adds an element (a running sum
//               would carry NaN, Inf and rounding along the axis). d^-3/4 by two roots and a
//               division, other powers as exp(-beta log d); the gradient computes d again.
// Partitioning  slabs; across channels blocks of kColumns columns.
// Numerics      sums in window order; d^-3/4 errs by three roundings, another power by a few eps
//               times 1 + |beta log d|.
// Floor         one read of x (and of grad_y), one write of the result.
#include "ops/local_response_norm.h"

#include <type_traits>

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::LocalResponseNormArgs;

// Columns of a task: as many rows as a window has in L1; forward, whose rows are fewer, in pages.
inline constexpr int64_t kColumns = 1024, kGradColumns = 512;
inline constexpr int kUsualRows = 5;      // of a window, in the networks with such layers
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

// d^-beta and what divides by d. ROOTS: beta is 3/4, that of the networks with such layers.
template <class T, bool ROOTS>
struct Scale {
  Vec<T> d, root;  // 1 / sqrt(d)

  LAMINA_INLINE explicit Scale(Vec<T> sum) : d(sum) {
    if constexpr (ROOTS) root = T(1) / square_root<T>(d);
  }
  LAMINA_INLINE Vec<T> power(T beta) const {
    if constexpr (ROOTS)
      return root * square_root<T>(root);
    else
      return exp<T>(-beta * log<T>(d));
  }
  LAMINA_INLINE Vec<T> divide(Vec<T> v) const {
    if constexpr (ROOTS)
      return v * root * root;
    else
      return v / d;
  }
};
// Calls body(whether beta is 3/4, as a constant).
template <class T, class Body>
LAMINA_INLINE void with_power(const LocalResponseNormArgs<T>& args, const Body& body) {
  if (args.beta == T(0.75))
    body(std::true_type{});
  else
    body(std::false_type{});
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
static void for_each_columns(const LocalResponseNormArgs<T>& args, int64_t columns,
                             const Body& body) {
  const int64_t inner = args.size[1] * args.size[2], blocks = ceil_div(inner, columns);
  parallel_for(args.slabs * blocks, [&](int64_t task) {
    const int64_t first = task % blocks * columns;
    body(task / blocks * args.slab(), first, min_of(columns, inner - first));
  });
}

// The rows of a window, cut at the ends.
struct WindowRows {
  int64_t begin, end;
  LAMINA_INLINE WindowRows(int64_t row, int64_t rows, int64_t before, int64_t after)
      : begin(max_of<int64_t>(row - before, 0)), end(min_of(row + after + 1, rows)) {}
};

// k + alpha * the sum of squares down a column of rows: a vector.
template <class T>
LAMINA_INLINE Vec<T> scale_across(const LocalResponseNormArgs<T>& args, const WindowRows& rows,
                                  const T* column, int64_t pitch, int64_t count) {
  __builtin_prefetch(column + (rows.end - 1 + kRowsAhead) * pitch);
  Vec<T> squares = {};
  for (int64_t r = rows.begin; r < rows.end; ++r) {
    const Vec<T> x = load_first(column + r * pitch, count);
    squares += x * x;
  }
  return args.k + args.alpha * squares;
}
// The same of the usual number of rows, without a loop.
template <class T>
LAMINA_INLINE Vec<T> usual_scale_across(const LocalResponseNormArgs<T>& args,
                                        const WindowRows& rows, const T* column, int64_t pitch,
                                        int64_t count) {
  __builtin_prefetch(column + (rows.end - 1 + kRowsAhead) * pitch);
  column += rows.begin * pitch;
  Vec<T> squares = {};
#pragma GCC unroll 5
  for (int r = 0; r < kUsualRows; ++r) {
    const Vec<T> x = load_first(column + r * pitch, count);
    squares += x * x;
  }
  return args.k + args.alpha * squares;
}

template <class T, bool ROOTS>
static void fprop_across(const LocalResponseNormArgs<T>& args) {
  const int64_t rows = args.size[0], pitch = args.size[1] * args.size[2];
  const int64_t before = args.window[0] / 2, after = (args.window[0] - 1) / 2;
  const bool streamed = is_streamed<T>(args.slabs * args.slab());
  for_each_columns(args, kColumns, [&](int64_t slab, int64_t first, int64_t width) {
    const T* x = args.x + slab + first;
    for (int64_t row = 0; row < rows; ++row) {
      const WindowRows window(row, rows, before, after);
      write_line(
          args.result + slab + row * pitch + first, width, streamed, [&](int64_t j, int64_t count) {
            const Vec<T> d = window.end - window.begin == kUsualRows
                                 ? usual_scale_across(args, window, x + j, pitch, count)
                                 : scale_across(args, window, x + j, pitch, count);
            return load_first(x + row * pitch + j, count) * Scale<T, ROOTS>(d).power(args.beta);
          });
    }
    finish_streams(streamed);
  });
}

// Of grad_y d^-beta and the terms x grad_y d^(-beta - 1) a window of rows is kept. A row is written
// while those of the last window that holds it are found, so that memory is read all the time.
template <class T, bool ROOTS>
static void dgrad_across(const LocalResponseNormArgs<T>& args) {
  const bool streamed = is_streamed<T>(args.slabs * args.slab());
  for_each_columns(args, kGradColumns, [&](int64_t slab, int64_t first, int64_t width) {
    // Copies: the compiler would read what a store may have changed again.
    const LocalResponseNormArgs<T> own_args = args;
    const int64_t rows = args.size[0], pitch = args.size[1] * args.size[2];
    const int64_t before = min_of(args.window[0] / 2, rows);
    const int64_t after = min_of((args.window[0] - 1) / 2, rows);
    const int64_t kept = before + after + 1, room = ceil_div(width, kLanes<T>) * kLanes<T>;
    const T factor = 2 * args.alpha * args.beta;
    const T *x = args.x + slab + first, *grad_y = args.grad_y + slab + first;
    // The terms of rows that are not there are 0; a row of zeros takes their place.
    const Scratch<T> own(kept * room + kLanes<T>), terms(kept * room + kLanes<T>);
    const Scratch<T> zeros(room + kLanes<T>);
    for (int64_t j = 0; j < room + kLanes<T>; ++j) zeros[j] = 0;
    const Scratch<const T*> places(kept);
    auto step = [&]<bool PREPARED, bool WRITTEN>(int64_t row) {
      const int64_t last = row + before, place = (last + kept) % kept * room;
      const WindowRows window(last, rows, before, after);
      for (int64_t k = 0; k < kept; ++k) {
        const int64_t r = row - after + k;
        places[k] = r < 0 || r >= rows ? zeros.get() : &terms[r % kept * room];
      }
      const T *own_row = &own[(row + kept) % kept * room], *own_x = x + row * pitch;
      const T *last_x = x + last * pitch, *last_grad = grad_y + last * pitch;
      T* result = args.result + slab + first + row * pitch;
      T *kept_own = &own[place], *kept_terms = &terms[place];
      const T* const* at = places.get();
      auto value = [=](int64_t j, int64_t count) -> Vec<T> {
        Vec<T> term = {}, sums = {};
        if constexpr (PREPARED) {
          __builtin_prefetch(last_grad + j + kRowsAhead * pitch);
          if (!streamed) __builtin_prefetch(result + j + pitch, 1);
          const Scale<T, ROOTS> scale(scale_across(own_args, window, x + j, pitch, count));
          const Vec<T> passed = load_first(last_grad + j, count) * scale.power(own_args.beta);
          term = scale.divide(passed * load_first(last_x + j, count));
          store_first(kept_own + j, count, passed), store_first(kept_terms + j, count, term);
        }
        if constexpr (!WRITTEN) return sums;
        for (int64_t k = 0; k + 1 < kept; ++k) sums += load(at[k] + j);
        return load(own_row + j) - factor * (load_first(own_x + j, count) * (sums + term));
      };
      if constexpr (WRITTEN)
        write_line(result, width, streamed, value);
      else
        along_line<T>(width, value);
    };
    for (int64_t row = -before; row < 0; ++row)
      if (row + before < rows) step.template operator()<true, false>(row);
    for (int64_t row = 0; row < rows; ++row)
      row + before < rows ? step.template operator()<true, true>(row)
                          : step.template operator()<false, true>(row);
    finish_streams(streamed);
  });
}

template <class T, bool ROOTS>
static void fprop_within(const LocalResponseNormArgs<T>& args) {
  const int64_t size = args.slab();
  parallel_for(args.slabs, [&](int64_t slab) {
    const T* x = args.x + slab * size;
    Scratch<T> a(size), b(size);
    const T* sums = square_sums(args, x, a.get(), b.get());
    along_line<T>(size, [&](int64_t i, int64_t count) {
      const Scale<T, ROOTS> scale(args.k + args.alpha * load_first(sums + i, count));
      store_first<T>(args.result + slab * size + i, count,
                     load_first(x + i, count) * scale.power(args.beta));
    });
  });
}

template <class T, bool ROOTS>
static void dgrad_within(const LocalResponseNormArgs<T>& args) {
  const int64_t size = args.slab();
  parallel_for(args.slabs, [&](int64_t slab) {
    const T* x = args.x + slab * size;
    Scratch<T> a(size), b(size), own(size);
    T* terms = square_sums(args, x, a.get(), b.get());
    along_line<T>(size, [&](int64_t i, int64_t count) {
      const Scale<T, ROOTS> scale(args.k + args.alpha * load_first(terms + i, count, T(1)));
      const Vec<T> passed =
          load_first(args.grad_y + slab * size + i, count) * scale.power(args.beta);
      store_first<T>(&own[i], count, passed);
      store_first<T>(terms + i, count, scale.divide(passed * load_first(x + i, count)));
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

template <class T>
void local_response_norm_fprop_windows(const LocalResponseNormArgs<T>& args) {
  with_power(args, [&](auto roots) {
    across_rows(args) ? fprop_across<T, roots>(args) : fprop_within<T, roots>(args);
  });
}

template <class T>
void local_response_norm_dgrad_windows(const LocalResponseNormArgs<T>& args) {
  with_power(args, [&](auto roots) {
    across_rows(args) ? dgrad_across<T, roots>(args) : dgrad_within<T, roots>(args);
  });
}

LAMINA_INSTANTIATE(local_response_norm_fprop_windows, LocalResponseNormArgs)
LAMINA_INSTANTIATE(local_response_norm_dgrad_windows, LocalResponseNormArgs)

LAMINA_CPU_NAMESPACE_END
