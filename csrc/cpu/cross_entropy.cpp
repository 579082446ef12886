// Cross-entropy: softmax over the middle axis of logits [n][c][inner], and the loss of its targets.
//
// Method        inner == 1: a line's maximum and sum of exp block by block, in one reading; the
//               gradient keeps the powers and scales them. Otherwise tiles in scratch, as softmax.
// Partitioning  lines (inner == 1) or tiles, about kTaskElements elements a task.
// Numerics      as softmax.
// Floor         one read of the logits (dgrad: and one write).
#include "cpu/softmax_lines.h"
#include "ops/instantiate.h"
#include "ops/softmax.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::CrossEntropyArgs;

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

// A line's gradient. Its powers wait in the result, or elsewhere if that is streamed. Then half the
// next line is asked for as they are made, half as the result is written: memory is read and
// written all the time.
template <class T>
static void loss_line_slope(const CrossEntropyArgs<T>& args, int64_t position, T total, T* powers) {
  const int64_t t = args.target[position];
  const T* line = args.x + position * args.c;
  T* grad = args.result + position * args.c;
  const bool streamed = powers != grad;
  if (t == args.ignore_index)
    return write_line(grad, args.c, streamed, [](int64_t, int64_t) { return Vec<T>{}; });
  const T *const next = line + args.c, top = line_maximum(line, args.c);
  const T sum = streamed ? line_powers<2>(line, args.c, top, next, powers)
                         : line_powers<1>(line, args.c, top, next, powers);
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
    __builtin_prefetch(next + (args.c + j) / 2);
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

LAMINA_INSTANTIATE(cross_entropy_fprop_fused, CrossEntropyArgs)
LAMINA_INSTANTIATE(cross_entropy_dgrad_fused, CrossEntropyArgs)

LAMINA_CPU_NAMESPACE_END
