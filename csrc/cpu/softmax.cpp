// softmax over the middle axis of [outer][axis][inner], and cross-entropy on top of it.
//
// Method        inner == 1: the line is contiguous, vectors run along it: maximum, exp and its sum,
//               scale; exp is taken once, the line stays in a near cache. Otherwise a tile of all
//               of `axis` and some neighbouring lines is copied to scratch as its maxima are taken
//               (strides of a power of two would throw lines out of the caches between the passes).
// Partitioning  lines (inner == 1) or tiles, about kTaskElements elements a task.
// Numerics      fmax would hide NaN, so the maximum is only a shift: NaN returns through the sum.
//               Lanes are summed in a fixed tree.
// Floor         one read and one write of the tensor.
#include "ops/softmax.h"

#include "core/threads.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::CrossEntropyArgs;
using ops::SoftmaxArgs;

static constexpr int64_t kTaskElements = 8192, kGroupElements = 2048;

// Calls body(outer, first, lines) for tiles of neighbouring lines, whole vectors but for the last.
template <class T, class Body>
static void for_each_tile(int64_t outer, int64_t axis, int64_t inner, const Body& body,
                          int64_t elements = kTaskElements) {
  const int64_t lines = ceil_div(elements, max_of<int64_t>(axis, 1) * kLanes<T>) * kLanes<T>;
  const int64_t per_outer = ceil_div(inner, lines);
  parallel_for(outer * per_outer, [&](int64_t task) {
    const int64_t first = task % per_outer * lines;
    body(task / per_outer, first, min_of(lines, inner - first));
  });
}
// Calls body(first, count) for groups of lines that L1 holds: at most a vector of short ones, one
// of the others.
template <class T, class Body>
static void for_each_lines(int64_t lines, int64_t axis, const Body& body) {
  const int64_t several = kGroupElements / max_of<int64_t>(1, axis);
  const int64_t group = max_of<int64_t>(1, min_of<int64_t>(several, kLanes<T>));
  const int64_t grain = ceil_div(kTaskElements, max_of<int64_t>(1, axis) * group) * group;
  parallel_ranges(lines, grain, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; line += group) body(line, min_of(group, end - line));
    finish_streams(is_streamed<T>(lines * axis));
  });
}
// The same one by one.
template <class T, class Body>
static void for_each_line(int64_t lines, int64_t axis, const Body& body) {
  for_each_lines<T>(lines, axis, [&](int64_t first, int64_t count) {
    for (int64_t line = first; line < first + count; ++line) body(line);
  });
}

template <class T>
LAMINA_INLINE Vec<T> load_some(const T* p, int64_t count, T fill = T(0)) {
  return count == kLanes<T> ? load(p) : load_first(p, count, fill);
}
template <class T>
LAMINA_INLINE void store_some(T* p, int64_t count, Vec<T> v) {
  if (count == kLanes<T>)
    store(p, v);
  else
    store_first(p, count, v);
}

template <class T, int WIDTH = kLanes<T> / 2>
LAMINA_INLINE T largest_lane(Vec<T> v) {
  const Vec<T> other = lanes_ahead<T, WIDTH>(v);
  v = other > v ? other : v;
  if constexpr (WIDTH == 1)
    return v[0];
  else
    return largest_lane<T, WIDTH / 2>(v);
}
template <class T>
static T line_maximum(const T* x, int64_t size) {
  Vec<T> top[4];
  for (Vec<T>& chain : top) chain = broadcast<T>(-T(__builtin_inf()));
  int64_t j = 0;
  for (; j + 4 * kLanes<T> <= size; j += 4 * kLanes<T>)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const Vec<T> v = load(x + j + c * kLanes<T>);
      top[c] = v > top[c] ? v : top[c];
    }
  for (; j < size; j += kLanes<T>) {
    const Vec<T> v = load_first(x + j, size - j, -T(__builtin_inf()));
    top[0] = v > top[0] ? v : top[0];
  }
#pragma GCC unroll 4
  for (int c = 1; c < 4; ++c) top[0] = top[c] > top[0] ? top[c] : top[0];
  return largest_lane<T>(top[0]);
}

// Sum of e = exp(x - top), which keep(j, count, e) may store.
template <class T, class Keep>
LAMINA_INLINE T line_sum_exp(const T* x, int64_t size, T top, const Keep& keep) {
  Vec<T> sums[2] = {};
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= size; j += 2 * kLanes<T>)
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      const Vec<T> e = exp<T>(load(x + j + c * kLanes<T>) - top);
      sums[c] += e;
      keep(j + c * kLanes<T>, int64_t{kLanes<T>}, e);
    }
  for (; j < size; j += kLanes<T>) {
    const int64_t count = min_of<int64_t>(kLanes<T>, size - j);
    const Vec<T> e = exp<T>(load_first(x + j, count) - top);
    sums[0] += lane_numbers<T>() < static_cast<LaneInteger<T>>(count) ? e : Vec<T>{};
    keep(j, count, e);
  }
  return sum_lanes<T>(sums[0] + sums[1]);
}

template <class T>
LAMINA_INLINE T log_of(T value) {
  T lanes[kLanes<T>];
  store(lanes, log<T>(broadcast(value)));
  return lanes[0];
}

// Up to a vector of lines; one stage after the other, so that no line waits for another's sum. The
// powers wait in `kept`.
template <class T>
static void softmax_lines(const T* x, T* y, T* kept, int64_t lines, int64_t axis, bool log,
                          bool streamed) {
  alignas(64) T top[kLanes<T>] = {}, sum[kLanes<T>] = {};
  for (int64_t l = 0; l < lines; ++l) top[l] = line_maximum(x + l * axis, axis);
  for (int64_t l = 0; l < lines; ++l) {
    T* to = kept + l * axis;
    if (log)
      sum[l] = line_sum_exp(x + l * axis, axis, top[l], [](int64_t, int64_t, Vec<T>) {});
    else
      sum[l] = line_sum_exp(x + l * axis, axis, top[l], [&](int64_t j, int64_t count, Vec<T> e) {
        store_some(to + j, count, e);
      });
  }
  store(sum, log ? cpu::LAMINA_ISA::log<T>(load(sum)) : T(1) / load(sum));
  for (int64_t l = 0; l < lines; ++l) {
    const T *line = x + l * axis, *power = kept + l * axis;
    write_line(y + l * axis, axis, streamed, [&](int64_t j, int64_t count) {
      return log ? (load_some(line + j, count) - top[l]) - sum[l]
                 : load_some(power + j, count) * sum[l];
    });
  }
}

// Rows of whole vectors in scratch, where that does not multiply the memory of long lines.
template <class T>
LAMINA_INLINE int64_t tile_width(int64_t axis, int64_t lines) {
  return axis < 65536 ? ceil_div(lines, kLanes<T>) * kLanes<T> : lines;
}

// `lines` neighbouring lines of logits in scratch, with their maxima and sums of exp. Vectors may
// read and write beyond the last line: what comes after it is written later, or is room.
template <class T>
class Tile {
 public:
  Tile(const T* x, int64_t axis, int64_t inner, int64_t lines, bool keep_exp)
      : lines_(lines),
        width_(tile_width<T>(axis, lines)),
        value_(axis * width_ + kLanes<T>),
        top_(lines + kLanes<T>),
        sum_(lines + kLanes<T>) {
    auto copy = [&](int64_t first, int64_t rows) {
      for_each_vector([&](int64_t i, int64_t count) {
        Vec<T> top = first == 0 ? broadcast<T>(-T(__builtin_inf())) : load(&top_[i]);
        for (int64_t j = first; j < first + rows; ++j) {
          const Vec<T> v = load_some(x + j * inner + i, count);
          store(&value_[j * width_ + i], v);
          top = v > top ? v : top;
        }
        store(&top_[i], top);
      });
    };
    int64_t row = 0;
    for (; row + 4 <= axis; row += 4) copy(row, 4);
    if (row < axis) copy(row, axis - row);
    for (int64_t j = 0; j < axis; ++j) prefetch_line(x + j * inner + lines, lines);
    for_each_vector([&](int64_t i, int64_t) {
      const Vec<T> top = load(&top_[i]);
      Vec<T> sum = {};
      for (int64_t j = 0; j < axis; ++j) {
        T* place = &value_[j * width_ + i];
        const Vec<T> e = exp<T>(load(place) - top);
        sum += e;
        if (keep_exp) store_first(place, width_ - i, e);
      }
      store(&sum_[i], sum);
    });
  }

  // Calls body(i, count) for the vectors of a row.
  template <class Body>
  LAMINA_INLINE void for_each_vector(const Body& body) const {
    along_line<T>(lines_, body);
  }
  Vec<T> value(int64_t j, int64_t i) const { return load(&value_[j * width_ + i]); }
  T logit(int64_t j, int64_t i) const { return value_[j * width_ + i]; }
  T* top() const { return top_.get(); }
  T* sum() const { return sum_.get(); }

 private:
  int64_t lines_, width_;
  Scratch<T> value_, top_, sum_;
};

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
  return log ? g - exp<T>(y) * sum : y * (g - sum);
}

template <class T>
static T slope_sum(const T* y, const T* g, int64_t size, bool log) {
  Vec<T> sums[2] = {};
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= size; j += 2 * kLanes<T>)
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      const Vec<T> v = load(g + j + c * kLanes<T>);
      sums[c] += log ? v : v * load(y + j + c * kLanes<T>);
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

// The loss of a position from its logits, weights and statistics.
template <class T, class Logit>
LAMINA_INLINE T loss_of_position(const CrossEntropyArgs<T>& args, int64_t t, T top, T log_sum,
                                 const Logit& logit) {
  auto loss_of = [&](int64_t j) {
    return (args.weight ? args.weight[j] : T(1)) * ((top - logit(j)) + log_sum);
  };
  const T s = args.label_smoothing, loss = loss_of(t);
  if (s == T(0)) return loss;
  T smooth = 0;
  for (int64_t j = 0; j < args.c; ++j) smooth += loss_of(j);
  return (T(1) - s) * loss + s / T(args.c) * smooth;
}

template <class T>
void cross_entropy_fprop_fused(const CrossEntropyArgs<T>& args) {
  if ((*args.bad = first_bad_target(args)) >= 0) return;
  if (args.inner != 1)
    return for_each_tile<T>(
        args.n, args.c, args.inner, [&](int64_t n, int64_t first, int64_t lines) {
          const Tile<T> tile(args.x + n * args.c * args.inner + first, args.c, args.inner, lines,
                             false);
          tile.for_each_vector(
              [&](int64_t i, int64_t) { store(tile.sum() + i, log<T>(load(tile.sum() + i))); });
          for (int64_t i = 0; i < lines; ++i) {
            const int64_t position = n * args.inner + first + i, t = args.target[position];
            args.result[position] =
                t == args.ignore_index
                    ? T(0)
                    : loss_of_position(args, t, tile.top()[i], tile.sum()[i],
                                       [&](int64_t j) { return tile.logit(j, i); });
          }
        });
  for_each_line<T>(args.n, args.c, [&](int64_t position) {
    const int64_t t = args.target[position];
    args.result[position] = 0;
    if (t == args.ignore_index) return;
    const T* line = args.x + position * args.c;
    const T top = line_maximum(line, args.c);
    const T log_sum = log_of(line_sum_exp(line, args.c, top, [](int64_t, int64_t, Vec<T>) {}));
    args.result[position] =
        loss_of_position(args, t, top, log_sum, [&](int64_t j) { return line[j]; });
  });
}

// grad_x[j] = scale e[j] - soft weight[j], less `hard` at the target, with e = exp(x - maximum).
template <class T>
struct LossSlope {
  T scale, soft, hard;

  LossSlope(const CrossEntropyArgs<T>& args, int64_t position, T sum, T total) {
    const T s = args.label_smoothing, g = args.grad_loss[position];
    const int64_t t = args.target[position];
    hard = g * (T(1) - s) * (args.weight ? args.weight[t] : T(1));
    soft = g * (s / T(args.c));
    scale = (hard + soft * total) / sum;
  }
};

template <class T>
void cross_entropy_dgrad_fused(const CrossEntropyArgs<T>& args) {
  if ((*args.bad = first_bad_target(args)) >= 0) return;
  T total = T(args.c);
  if (args.weight) {
    total = 0;
    for (int64_t j = 0; j < args.c; ++j) total += args.weight[j];
  }
  if (args.inner != 1)
    return for_each_tile<T>(
        args.n, args.c, args.inner, [&](int64_t n, int64_t first, int64_t lines) {
          const int64_t at = n * args.c * args.inner + first, position = n * args.inner + first;
          const Tile<T> tile(args.x + at, args.c, args.inner, lines, true);
          Scratch<T> hard(lines + kLanes<T>);
          T *scale = tile.sum(), *soft = tile.top();  // in their place
          for (int64_t i = 0; i < lines; ++i) {
            if (args.target[position + i] == args.ignore_index) continue;
            const LossSlope<T> slope(args, position + i, tile.sum()[i], total);
            scale[i] = slope.scale, soft[i] = slope.soft, hard[i] = slope.hard;
          }
          T* grad = args.result + at;
          for (int64_t j = 0; j < args.c; ++j)
            tile.for_each_vector([&](int64_t i, int64_t count) {
              Vec<T> v = tile.value(j, i) * load(scale + i);
              v -= load(soft + i) * (args.weight ? args.weight[j] : T(1));
              store_some(grad + j * args.inner + i, count, v);
            });
          for (int64_t i = 0; i < lines; ++i) {
            const int64_t t = args.target[position + i];
            if (t != args.ignore_index)
              grad[t * args.inner + i] -= hard[i];
            else
              for (int64_t j = 0; j < args.c; ++j) grad[j * args.inner + i] = 0;
          }
        });
  for_each_line<T>(args.n, args.c, [&](int64_t position) {
    const int64_t t = args.target[position];
    const T* line = args.x + position * args.c;
    T* grad = args.result + position * args.c;
    if (t == args.ignore_index) {
      for (int64_t j = 0; j < args.c; ++j) grad[j] = 0;
      return;
    }
    const T sum =
        line_sum_exp(line, args.c, line_maximum(line, args.c),
                     [&](int64_t j, int64_t count, Vec<T> e) { store_some(grad + j, count, e); });
    const LossSlope<T> slope(args, position, sum, total);
    along_line<T>(args.c, [&](int64_t j, int64_t count) {
      Vec<T> v = load_some(grad + j, count) * slope.scale;
      v -= slope.soft * (args.weight ? load_some(args.weight + j, count) : broadcast<T>(T(1)));
      store_some(grad + j, count, v);
    });
    grad[t] -= slope.hard;
  });
}

LAMINA_INSTANTIATE(softmax_fprop_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(softmax_dgrad_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(cross_entropy_fprop_fused, CrossEntropyArgs)
LAMINA_INSTANTIATE(cross_entropy_dgrad_fused, CrossEntropyArgs)

LAMINA_CPU_NAMESPACE_END
