// softmax over the middle axis of [outer][axis][inner].
//
// Method        inner == 1: vectors run along the line: maximum, exp and its sum, scale, while the
//               next lines are asked for; sums alone go block by block, in one reading. Otherwise a
//               tile of all of `axis` and some neighbouring lines is copied to scratch as its
//               maxima are taken (strides of a power of two would throw lines out of the caches).
// Partitioning  lines (inner == 1) or tiles, about kTaskElements elements a task.
// Numerics      fmax would hide NaN, so the maximum is only a shift: NaN returns through the sum.
//               Lanes are summed in a fixed tree.
// Floor         one read and one write of the tensor.
#include "ops/softmax.h"

#include "cpu/softmax_lines.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::SoftmaxArgs;

// Up to a vector of lines; one stage after the other, so that no line waits for another's sum. The
// powers wait in `kept`.
template <class T>
static void softmax_lines(const T* x, T* y, T* kept, int64_t lines, int64_t axis, bool log,
                          bool streamed) {
  alignas(64) T top[kLanes<T>] = {}, sum[kLanes<T>] = {};
  if (log && axis > kGroupElements) {
    sum[0] = line_statistics(x, axis, top[0]);
  } else {
    for (int64_t l = 0; l < lines; ++l) top[l] = line_maximum(x + l * axis, axis);
    for (int64_t l = 0; l < lines; ++l) {
      const int64_t at = l * axis;
      T largest;
      sum[l] = log ? line_sum(x + at, axis, top[l], lines * axis, largest)
                   : line_powers<1>(x + at, axis, top[l], x + at + lines * axis, kept + at);
    }
  }
  store(sum, log ? cpu::LAMINA_ISA::log<T>(load(sum)) : T(1) / load(sum));
  for (int64_t l = 0; l < lines; ++l) {
    const T *line = x + l * axis, *power = kept + l * axis;
    // Of a long line the sum asked for none of the next one: memory is read as it is written.
    const bool ask = streamed && log && axis > kGroupElements;
    write_line(y + l * axis, axis, streamed, [&](int64_t j, int64_t count) {
      if (ask) __builtin_prefetch(line + axis + j / 2);
      return log ? (load_some(line + j, count) - top[l]) - sum[l]
                 : load_some(power + j, count) * sum[l];
    });
  }
}

template <class T>
static void softmax_tile(const T* x, T* y, int64_t axis, int64_t inner, int64_t lines, bool log) {
  const Tile<T> tile(x, axis, inner, lines, !log);
  tile.for_each_vector([&](int64_t i, int64_t) {
    const Vec<T> sum = load(tile.sum() + i);
    store(tile.sum() + i, log ? cpu::LAMINA_ISA::log<T>(sum) : T(1) / sum);
  });
  for (int64_t j = 0; j < axis; ++j)
    tile.for_each_vector([&](int64_t i, int64_t count) {
      const Vec<T> v = tile.value(j, i), sum = load(tile.sum() + i);
      store_some(y + j * inner + i, count, log ? (v - load(tile.top() + i)) - sum : v * sum);
    });
}

template <class T>
void softmax_fprop_lines(const SoftmaxArgs<T>& args) {
  if (args.inner != 1)
    return for_each_tile<T>(
        args.outer, args.axis, args.inner, [&](int64_t o, int64_t i, int64_t lines) {
          const int64_t at = o * args.axis * args.inner + i;
          softmax_tile(args.x + at, args.result + at, args.axis, args.inner, lines, args.log);
        });
  const bool streamed = is_streamed<T>(args.outer * args.axis);
  for_each_lines<T>(args.outer, args.axis, [&](int64_t line, int64_t lines) {
    const int64_t at = line * args.axis;
    const bool apart = streamed && !args.log;  // not in the result, which leaves the caches
    Scratch<T> powers(apart ? lines * args.axis : 0);
    softmax_lines(args.x + at, args.result + at, apart ? powers.get() : args.result + at, lines,
                  args.axis, args.log, streamed);
  });
}

template <class T>
LAMINA_INLINE Vec<T> softmax_slope(Vec<T> y, Vec<T> g, Vec<T> sum, bool log) {
  return log ? g - exp_nonpositive<T>(y) * sum : y * (g - sum);
}

// Asks for y where the sum has no use for it yet.
template <class T>
static T slope_sum(const T* y, const T* g, int64_t size, bool log) {
  Vec<T> sums[2] = {};
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= size; j += 2 * kLanes<T>)
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      const int64_t i = j + c * kLanes<T>;
      const Vec<T> v = load(g + i);
      if (log) __builtin_prefetch(y + i);
      sums[c] += log ? v : v * load(y + i);
    }
  for (; j < size; j += kLanes<T>) {
    const Vec<T> v = load_first(g + j, size - j);
    sums[0] += log ? v : v * load_first(y + j, size - j);
  }
  return sum_lanes<T>(sums[0] + sums[1]);
}
template <class T>
static void softmax_lines_slope(const T* y, const T* g, T* grad_x, int64_t lines, int64_t axis,
                                bool log, bool streamed) {
  alignas(64) T sum[kLanes<T>];
  for (int64_t l = 0; l < lines; ++l) sum[l] = slope_sum(y + l * axis, g + l * axis, axis, log);
  for (int64_t l = 0; l < lines; ++l) {
    const T *result = y + l * axis, *grad = g + l * axis;
    write_line(grad_x + l * axis, axis, streamed, [&](int64_t j, int64_t count) {
      __builtin_prefetch(grad + lines * axis + j);  // the next lines
      if (!log) __builtin_prefetch(result + lines * axis + j);
      return softmax_slope<T>(load_some(result + j, count), load_some(grad + j, count),
                              broadcast(sum[l]), log);
    });
  }
}
// The sums take four rows at a time; the next tile is fetched as this one is written.
template <class T>
static void softmax_tile_slope(const T* y, const T* g, T* grad_x, int64_t axis, int64_t inner,
                               int64_t lines, bool log) {
  Scratch<T> sums(lines + kLanes<T>);
  auto term = [&](int64_t at, int64_t count) {
    const Vec<T> grad = load_some(g + at, count);
    return log ? grad : grad * load_some(y + at, count);
  };
  auto add = [&](int64_t j, int64_t rows) {
    along_line<T>(lines, [&](int64_t i, int64_t count) {
      Vec<T> sum = j == 0 ? Vec<T>{} : load(&sums[i]);
      for (int64_t r = j; r < j + rows; ++r) sum += term(r * inner + i, count);
      store(&sums[i], sum);
    });
  };
  int64_t j = 0;
  for (; j + 4 <= axis; j += 4) add(j, 4);
  if (j < axis) add(j, axis - j);
  for (j = 0; j < axis; ++j) {
    prefetch_line(y + j * inner + lines, lines);
    prefetch_line(g + j * inner + lines, lines);
    along_line<T>(lines, [&](int64_t i, int64_t count) {
      const int64_t at = j * inner + i;
      store_some(grad_x + at, count,
                 softmax_slope<T>(load_some(y + at, count), load_some(g + at, count),
                                  load(&sums[i]), log));
    });
  }
}

template <class T>
void softmax_dgrad_lines(const SoftmaxArgs<T>& args) {
  if (args.inner != 1)
    return for_each_tile<T>(
        args.outer, args.axis, args.inner,
        [&](int64_t o, int64_t i, int64_t lines) {
          const int64_t at = o * args.axis * args.inner + i;
          softmax_tile_slope(args.y + at, args.grad_y + at, args.result + at, args.axis, args.inner,
                             lines, args.log);
        },
        kTaskElements / 2);
  const bool streamed = is_streamed<T>(args.outer * args.axis);
  for_each_lines<T>(args.outer, args.axis, [&](int64_t line, int64_t lines) {
    const int64_t at = line * args.axis;
    softmax_lines_slope(args.y + at, args.grad_y + at, args.result + at, lines, args.axis, args.log,
                        streamed);
  });
}

LAMINA_INSTANTIATE(softmax_fprop_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(softmax_dgrad_lines, SoftmaxArgs)

LAMINA_CPU_NAMESPACE_END
