// softmax over the middle axis of [outer][axis][inner], and cross-entropy on top of it.
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
// of the others. Large tensors have larger tasks, as the lines after a group are asked for early.
template <class T, class Body>
static void for_each_lines(int64_t lines, int64_t axis, const Body& body) {
  const int64_t several = kGroupElements / max_of<int64_t>(1, axis);
  const int64_t group = max_of<int64_t>(1, min_of<int64_t>(several, kLanes<T>));
  const bool large = is_streamed<T>(lines * axis);
  const int64_t elements = large ? 8 * kTaskElements : kTaskElements;
  const int64_t grain = ceil_div(elements, max_of<int64_t>(1, axis) * group) * group;
  parallel_ranges(lines, grain, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; line += group) body(line, min_of(group, end - line));
    finish_streams(large);
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

// e^x for x <= 0 as a term of a sum. float: within 2 units in the last place, for less than exp
// takes: a polynomial of e^r itself.
template <class T>
LAMINA_INLINE Vec<T> exp_term(Vec<T> x) {
  if constexpr (sizeof(T) != 4) return exp_nonpositive<T>(x);
  constexpr T kSeries[] = {1.0f,         0.999999702f,  0.499991506f,
                           0.166676357f, 0.0418979302f, 0.00829031505f};
  x = at_least<T>(x, Real<T>::kExpMin);
  const Whole<T> n = halvings<T>(x);
  const Vec<T> r = (x - n.value * Real<T>::kLn2High) - n.value * Real<T>::kLn2Low;
  return scaled<T>(polynomial<T>(kSeries, r), n);
}
// Sum of exp(x - top), whose terms may be kept. Asks for the elements `ahead` of x.
template <bool KEPT, class T>
LAMINA_INLINE T line_sum_exp(const T* x, int64_t size, T top, int64_t ahead, T* kept) {
  auto power = [&](int64_t j, int64_t count) {
    const Vec<T> shifted = load_some(x + j, count) - top;
    const Vec<T> e = KEPT ? exp_nonpositive<T>(shifted) : exp_term<T>(shifted);
    if (KEPT) store_some(kept + j, count, e);
    return e;
  };
  Vec<T> sums[2] = {};
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= size; j += 2 * kLanes<T>)
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      __builtin_prefetch(x + j + c * kLanes<T> + ahead);
      sums[c] += power(j + c * kLanes<T>, int64_t{kLanes<T>});
    }
  for (; j < size; j += kLanes<T>) {
    const int64_t count = min_of<int64_t>(kLanes<T>, size - j);
    const Vec<T> e = power(j, count);
    sums[0] += lane_numbers<T>() < static_cast<LaneInteger<T>>(count) ? e : Vec<T>{};
  }
  return sum_lanes<T>(sums[0] + sums[1]);
}

// Maximum and sum of exp(x - maximum) of a long line, which is read from memory once: block by
// block, while the next one is asked for.
template <class T>
static T line_statistics(const T* x, int64_t size, T& top) {
  top = -T(__builtin_inf());
  double sum = 0;
  for (int64_t begin = 0; begin < size; begin += kGroupElements) {
    const int64_t count = min_of(kGroupElements, size - begin);
    const T largest = line_maximum(x + begin, count);
    if (largest > top) {
      if (begin > 0) sum *= exp_nonpositive<double>(broadcast(double(top) - double(largest)))[0];
      top = largest;
    }
    // Nothing but -Inf as yet: it adds 0, and NaN itself.
    const T shift = top == -T(__builtin_inf()) ? T(0) : top;
    sum += double(line_sum_exp<false, T>(x + begin, count, shift, kGroupElements, nullptr));
  }
  return T(sum);
}

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
      sum[l] = log ? line_sum_exp<false, T>(x + at, axis, top[l], lines * axis, nullptr)
                   : line_sum_exp<true>(x + at, axis, top[l], lines * axis, kept + at);
    }
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
        const Vec<T> e = exp_nonpositive<T>(load(place) - top);
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
    T top;
    const T log_sum = log<T>(broadcast(line_statistics(line, args.c, top)))[0];
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

// A line's gradient. Its powers wait in the result, or elsewhere if that is streamed.
template <class T>
static void loss_line_slope(const CrossEntropyArgs<T>& args, int64_t position, T total, T* powers) {
  const int64_t t = args.target[position];
  const T* line = args.x + position * args.c;
  T* grad = args.result + position * args.c;
  const bool streamed = powers != grad;
  if (t == args.ignore_index)
    return write_line(grad, args.c, streamed, [](int64_t, int64_t) { return Vec<T>{}; });
  const T sum = line_sum_exp<true>(line, args.c, line_maximum(line, args.c), args.c, powers);
  const LossSlope<T> slope(args, position, sum, total);
  auto value = [&](int64_t j, int64_t count) {
    const Vec<T> v = load_some(powers + j, count) * slope.scale;
    return v - slope.soft * (args.weight ? load_some(args.weight + j, count) : broadcast<T>(T(1)));
  };
  if (!streamed) {
    write_line(grad, args.c, false, value);
    grad[t] -= slope.hard;
    return;
  }
  write_line(grad, args.c, true, [&](int64_t j, int64_t count) {
    const int64_t lane = max_of<int64_t>(-1, min_of<int64_t>(t - j, kLanes<T>));
    const Mask<T> found = lane_numbers<T>() == static_cast<LaneInteger<T>>(lane);
    return value(j, count) - (found ? broadcast(slope.hard) : Vec<T>{});
  });
}

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
  const bool streamed = is_streamed<T>(args.n * args.c);
  for_each_line<T>(args.n, args.c, [&](int64_t position) {
    if (!streamed) return loss_line_slope(args, position, total, args.result + position * args.c);
    const Scratch<T> powers(args.c);
    loss_line_slope(args, position, total, powers.get());
  });
}

LAMINA_INSTANTIATE(softmax_fprop_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(softmax_dgrad_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(cross_entropy_fprop_fused, CrossEntropyArgs)
LAMINA_INSTANTIATE(cross_entropy_dgrad_fused, CrossEntropyArgs)

LAMINA_CPU_NAMESPACE_END
