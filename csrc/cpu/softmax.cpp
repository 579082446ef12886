// softmax over the middle axis of [outer][axis][inner], and cross-entropy on top of it.
//
// Method        inner == 1: the line is contiguous, vectors run along it. Otherwise vectors run
//               along `inner`, each lane a line of its own. Three passes: maximum, sum of exp,
//               result.
// Source        Milakov & Gimelshein 2018 fuse the first two; here a line stays in L1 between them.
// Partitioning  one task per line (inner == 1) or per vector of lines; lanes summed in a fixed
// tree. Numerics      fmax would hide NaN, so the maximum is only a shift: NaN returns through the
// sum. Floor         one read and one write of the tensor.
#include "ops/softmax.h"

#include "core/threads.h"
#include "cpu/simd.h"
#include "cpu/simd_math.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::CrossEntropyArgs;
using ops::SoftmaxArgs;

static constexpr int64_t kTaskElements = 8192;

// Calls body(outer, i, lanes) for each group of neighbouring lines: one line where inner == 1, else
// up to a vector of them; groups of one task are neighbours.
template <class T, class Body>
static void for_each_group(int64_t outer, int64_t axis, int64_t inner, Body body) {
  const int64_t width = inner == 1 ? 1 : kLanes<T>;
  const int64_t per_outer = ceil_div(inner, width);
  const int64_t grain = max_of<int64_t>(1, kTaskElements / max_of<int64_t>(1, axis * width));
  parallel_ranges(outer * per_outer, grain, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t i = group % per_outer * width;
      body(group / per_outer, i, min_of<int64_t>(width, inner - i));
    }
  });
}

// A contiguous line, whole vectors and a padded rest: map(v) for each vector, kept(j) at each
// store.
template <class T, class Body>
LAMINA_INLINE void along_line(int64_t size, Body body) {
  int64_t j = 0;
  for (; j + kLanes<T> <= size; j += kLanes<T>) body(j, int64_t{kLanes<T>});
  if (j < size) body(j, size - j);
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

template <class T>
static T line_maximum(const T* x, int64_t size) {
  Vec<T> top = broadcast<T>(-T(__builtin_inf()));
  along_line<T>(size, [&](int64_t j, int64_t count) {
    const Vec<T> v = load_some(x + j, count, -T(__builtin_inf()));
    top = v > top ? v : top;
  });
  T lanes[kLanes<T>];
  store(lanes, top);
  for (int i = 1; i < kLanes<T>; ++i) lanes[0] = max_of(lanes[0], lanes[i]);
  return lanes[0];
}

// Sum of exp(x - top); padding lanes hold -Inf and add nothing.
template <class T>
static T line_sum_exp(const T* x, int64_t size, T top) {
  Vec<T> sum = {};
  along_line<T>(size, [&](int64_t j, int64_t count) {
    if (count == kLanes<T>) {
      sum += exp<T>(load(x + j) - top);
    } else {
      T lanes[kLanes<T>] = {};
      store(lanes, exp<T>(load_first(x + j, count) - top));
      for (int64_t i = count; i < kLanes<T>; ++i) lanes[i] = 0;
      sum += load(lanes);
    }
  });
  return sum_lanes<T>(sum);
}

template <class T>
LAMINA_INLINE T log_of(T value) {
  T lanes[kLanes<T>];
  store(lanes, log<T>(broadcast(value)));
  return lanes[0];
}

template <class T>
static void softmax_line(const T* x, T* y, int64_t size, bool log) {
  const T top = line_maximum(x, size);
  const T sum = line_sum_exp(x, size, top);
  const T shift = log ? log_of(sum) : T(0), scale = T(1) / sum;
  along_line<T>(size, [&](int64_t j, int64_t count) {
    const Vec<T> centred = load_some(x + j, count) - top;
    store_some(y + j, count, log ? centred - shift : exp<T>(centred) * scale);
  });
}

// kLanes lines side by side, `inner` elements from one of their elements to the next.
template <class T>
static void softmax_lines(const T* x, T* y, int64_t axis, int64_t inner, int64_t lanes, bool log) {
  Vec<T> top = broadcast<T>(-T(__builtin_inf()));
  for (int64_t j = 0; j < axis; ++j) {
    const Vec<T> v = load_some(x + j * inner, lanes);
    top = v > top ? v : top;
  }
  Vec<T> sum = {};
  for (int64_t j = 0; j < axis; ++j) sum += exp<T>(load_some(x + j * inner, lanes) - top);
  const Vec<T> shift = cpu::LAMINA_ISA::log<T>(sum), scale = T(1) / sum;
  for (int64_t j = 0; j < axis; ++j) {
    const Vec<T> centred = load_some(x + j * inner, lanes) - top;
    store_some(y + j * inner, lanes, log ? centred - shift : exp<T>(centred) * scale);
  }
}

template <class T>
void softmax_fprop_lines(const SoftmaxArgs<T>& args) {
  for_each_group<T>(args.outer, args.axis, args.inner, [&](int64_t o, int64_t i, int64_t lanes) {
    const int64_t at = o * args.axis * args.inner + i;
    if (args.inner == 1)
      softmax_line(args.x + at, args.result + at, args.axis, args.log);
    else
      softmax_lines(args.x + at, args.result + at, args.axis, args.inner, lanes, args.log);
  });
}

template <class T>
LAMINA_INLINE Vec<T> softmax_slope(Vec<T> y, Vec<T> g, Vec<T> sum, bool log) {
  return log ? g - exp<T>(y) * sum : y * (g - sum);
}

template <class T>
void softmax_dgrad_lines(const SoftmaxArgs<T>& args) {
  for_each_group<T>(args.outer, args.axis, args.inner, [&](int64_t o, int64_t i, int64_t lanes) {
    const int64_t at = o * args.axis * args.inner + i;
    const T *y = args.y + at, *g = args.grad_y + at;
    T* grad_x = args.result + at;
    Vec<T> sum = {};
    if (args.inner == 1) {
      along_line<T>(args.axis, [&](int64_t j, int64_t count) {
        const Vec<T> v = load_some(g + j, count);
        sum += args.log ? v : v * load_some(y + j, count);
      });
      sum = broadcast(sum_lanes<T>(sum));
      along_line<T>(args.axis, [&](int64_t j, int64_t count) {
        store_some(
            grad_x + j, count,
            softmax_slope<T>(load_some(y + j, count), load_some(g + j, count), sum, args.log));
      });
      return;
    }
    for (int64_t j = 0; j < args.axis * args.inner; j += args.inner) {
      const Vec<T> v = load_some(g + j, lanes);
      sum += args.log ? v : v * load_some(y + j, lanes);
    }
    for (int64_t j = 0; j < args.axis * args.inner; j += args.inner)
      store_some(grad_x + j, lanes,
                 softmax_slope<T>(load_some(y + j, lanes), load_some(g + j, lanes), sum, args.log));
  });
}

// Reads logit j of a line as line[j * inner]; n lines of c logits.
template <class T, class Body>
static void for_each_logit_line(const CrossEntropyArgs<T>& args, Body body) {
  const int64_t grain = max_of<int64_t>(1, kTaskElements / max_of<int64_t>(1, args.c));
  parallel_ranges(args.n * args.inner, grain, [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position)
      body(position, position / args.inner * args.c * args.inner + position % args.inner);
  });
}

template <class T>
LAMINA_INLINE T exp_of(T value) {
  return sizeof(T) == sizeof(float) ? T(__builtin_expf(float(value))) : T(__builtin_exp(value));
}

struct LineStats {
  double top, log_sum;
};

template <class T>
static LineStats line_stats(const T* line, int64_t c, int64_t inner) {
  if (inner == 1) {
    const T top = line_maximum(line, c);
    return {double(top), double(log_of(line_sum_exp(line, c, top)))};
  }
  T top = -T(__builtin_inf()), sum = 0;
  for (int64_t j = 0; j < c; ++j) top = max_of(top, line[j * inner]);
  for (int64_t j = 0; j < c; ++j) sum += exp_of(line[j * inner] - top);
  return {double(top), double(log_of(sum))};
}

template <class T>
void cross_entropy_fprop_fused(const CrossEntropyArgs<T>& args) {
  if ((*args.bad = first_bad_target(args)) >= 0) return;
  const T s = args.label_smoothing;
  for_each_logit_line(args, [&](int64_t position, int64_t at) {
    const int64_t t = args.target[position];
    args.result[position] = 0;
    if (t == args.ignore_index) return;
    const T* line = args.x + at;
    const LineStats stats = line_stats(line, args.c, args.inner);
    auto loss_of = [&](int64_t j) {
      const T weight = args.weight ? args.weight[j] : T(1);
      return weight * ((T(stats.top) - line[j * args.inner]) + T(stats.log_sum));
    };
    T loss = loss_of(t);
    if (s != T(0)) {
      T smooth = 0;
      for (int64_t j = 0; j < args.c; ++j) smooth += loss_of(j);
      loss = (T(1) - s) * loss + s / T(args.c) * smooth;
    }
    args.result[position] = loss;
  });
}

template <class T>
void cross_entropy_dgrad_fused(const CrossEntropyArgs<T>& args) {
  if ((*args.bad = first_bad_target(args)) >= 0) return;
  const T s = args.label_smoothing;
  T total = T(args.c);
  if (args.weight) {
    total = 0;
    for (int64_t j = 0; j < args.c; ++j) total += args.weight[j];
  }
  for_each_logit_line(args, [&](int64_t position, int64_t at) {
    const int64_t t = args.target[position];
    const T* line = args.x + at;
    T* grad = args.result + at;
    if (t == args.ignore_index) {
      for (int64_t j = 0; j < args.c; ++j) grad[j * args.inner] = 0;
      return;
    }
    const LineStats stats = line_stats(line, args.c, args.inner);
    const T shift = T(stats.top) + T(stats.log_sum), g = args.grad_loss[position];
    const T hard = (T(1) - s) * (args.weight ? args.weight[t] : T(1)), soft = s / T(args.c);
    const T scale = g * (hard + soft * total);
    for (int64_t j = 0; j < args.c; ++j)
      grad[j * args.inner] = scale * exp_of(line[j * args.inner] - shift) -
                             g * soft * (args.weight ? args.weight[j] : T(1));
    grad[t * args.inner] -= g * hard;
  });
}

LAMINA_INSTANTIATE(softmax_fprop_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(softmax_dgrad_lines, SoftmaxArgs)
LAMINA_INSTANTIATE(cross_entropy_fprop_fused, CrossEntropyArgs)
LAMINA_INSTANTIATE(cross_entropy_dgrad_fused, CrossEntropyArgs)

LAMINA_CPU_NAMESPACE_END
