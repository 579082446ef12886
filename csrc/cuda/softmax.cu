// softmax over the middle axis of [outer][axis][inner], and cross-entropy on top of it.
//
// Method        a line stays in the registers of its threads between the maximum, the sum of exp
//               and the result; longer lines are read twice: once for maximum and sum together,
//               the sum scaled anew whenever the maximum grows (Milakov & Gimelshein 2018), once
//               for the result.
// Partitioning  device/lines.h: 8 to 512 threads a line where inner is 1, else blocks of up to
//               32 neighbouring lines. Cross-entropy: one launch checks the targets, the next one
//               does nothing if one of them is bad.
// Numerics      the maximum passes over NaN, which returns through the sum; it starts at the lowest
//               finite number, so that lines of -Inf and lines with +Inf become NaN too.
// Floor         one read and one write of the tensor (gradient of softmax: two reads).
#include "cuda/device/launch.h"
#include "cuda/device/lines.h"
#include "cuda/instantiate.h"
#include "ops/softmax.h"

namespace lamina::cuda {

using ops::CrossEntropyArgs;
using ops::SoftmaxArgs;

template <class A>
__host__ __device__ constexpr A lowest() {
  return sizeof(A) == sizeof(float) ? A(-3.40282346638528859812e+38)
                                    : A(-1.79769313486231570815e+308);
}

template <class A>
struct LineStats {
  A top, sum;  // maximum, and sum of exp(x - maximum)
};

// v holds the slots of a line that fits into them, and is kept; otherwise v is scratch.
template <bool ONE, class T, class Lines>
__device__ __forceinline__ LineStats<Acc<T>> line_stats(const Lines& lines, const T* x,
                                                        Slots<T>& v) {
  using A = Acc<T>;
  A top = lowest<A>(), sum = A(0);
  for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
    lines.load_slots(x + lines.base, first, -infinity<A>(), v);
    A batch_top = top;
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) batch_top = MaxPastNan()(batch_top, v[i]);
    if (ONE) batch_top = lines.reduce(batch_top, MaxPastNan());
    if (!ONE && batch_top > top) sum *= exp(top - batch_top);
    top = batch_top;
    lines.template for_each_slot<T>(first, [&](int i, int64_t) { sum += exp(v[i] - top); });
  }
  if (!ONE) {
    const A line_top = lines.reduce(top, MaxPastNan());
    sum *= exp(top - line_top);
    top = line_top;
  }
  return {top, lines.reduce(sum, Sum())};
}

// ---- softmax

// One block a multiprocessor in all bounds: ptxas would otherwise spill to fit more of them.
template <class T, class Lines, bool ONE>
__global__ void __launch_bounds__(Lines::kThreads, 1)
    softmax_fprop_kernel(LineShape shape, bool log_of, const T* x, T* y) {
  using A = Acc<T>;
  const Lines lines(shape);
  Slots<T> v;
  const LineStats<A> stats = line_stats<ONE>(lines, x, v);
  const A shift = log_of ? log(stats.sum) : A(0), scale = A(1) / stats.sum;
  for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
    if (!ONE) lines.load_slots(x + lines.base, first, -infinity<A>(), v);
    lines.template for_each_slot<T>(first, [&](int i, int64_t) {
      v[i] -= stats.top;
      v[i] = log_of ? v[i] - shift : exp(v[i]) * scale;
    });
    lines.store_slots(y + lines.base, first, v);
  }
}

template <class T, class Lines, bool ONE>
__global__ void __launch_bounds__(Lines::kThreads, 1)
    softmax_dgrad_kernel(LineShape shape, bool log_of, const T* y, const T* grad_y, T* grad_x) {
  using A = Acc<T>;
  const Lines lines(shape);
  Slots<T> v, g;
  A sum = A(0);
  for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
    lines.load_slots(grad_y + lines.base, first, A(0), g);
    if (ONE || !log_of) lines.load_slots(y + lines.base, first, A(0), v);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) sum += log_of ? g[i] : g[i] * v[i];
  }
  sum = lines.reduce(sum, Sum());
  for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
    if (!ONE)
      lines.load_slots(grad_y + lines.base, first, A(0), g),
          lines.load_slots(y + lines.base, first, A(0), v);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i)
      g[i] = log_of ? g[i] - exp(v[i]) * sum : v[i] * (g[i] - sum);
    lines.store_slots(grad_x + lines.base, first, g);
  }
}

template <class T>
void softmax_fprop_lines(const SoftmaxArgs<T>& args) {
  const LineShape lines{args.outer, args.axis, args.inner};
  const bool wide = args.axis % kWide<T> == 0 && is_wide(args.x, args.result);
  visit_lines<T>(lines, wide, [&]<class Lines, bool ONE>(const LineShape& shape) {
    launch(softmax_fprop_kernel<T, Lines, ONE>, line_grid<Lines>(shape), Lines::threads(shape), 0,
           shape, args.log, args.x, args.result);
  });
}

template <class T>
void softmax_dgrad_lines(const SoftmaxArgs<T>& args) {
  const LineShape lines{args.outer, args.axis, args.inner};
  const bool wide = args.axis % kWide<T> == 0 && is_wide(args.y, args.grad_y, args.result);
  visit_lines<T>(lines, wide, [&]<class Lines, bool ONE>(const LineShape& shape) {
    launch(softmax_dgrad_kernel<T, Lines, ONE>, line_grid<Lines>(shape), Lines::threads(shape), 0,
           shape, args.log, args.y, args.grad_y, args.result);
  });
}

// ---- cross-entropy

// bad[0], -1 before, becomes the first position with a bad target: -1 is the largest number without
// a sign, and the smallest position does not depend on the order of the blocks.
template <class T>
__global__ void __launch_bounds__(256)
    bad_target_kernel(const int64_t* target, int64_t positions, int64_t classes,
                      int64_t ignore_index, int64_t* bad) {
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= positions) return;
  const int64_t t = target[i];
  if (t != ignore_index && (t < 0 || t >= classes))
    atomicMin(reinterpret_cast<unsigned long long*>(bad), static_cast<unsigned long long>(i));
}

template <class T>
struct CrossEntropyRule {
  LineShape shape;
  int64_t ignore_index;
  Acc<T> smoothing, soft;  // s, and s / c
  const T* x;
  const int64_t* target;
  const T* weight;
  const int64_t* bad;

  __device__ __forceinline__ Acc<T> weight_of(int64_t j) const {
    return weight ? widen(weight[j]) : Acc<T>(1);
  }
};

template <class T, class Lines, bool ONE>
__global__ void __launch_bounds__(Lines::kThreads, 1)
    cross_entropy_fprop_kernel(CrossEntropyRule<T> rule, T* loss) {
  using A = Acc<T>;
  if (*rule.bad >= 0) return;
  const Lines lines(rule.shape);
  Slots<T> v;
  const LineStats<A> stats = line_stats<ONE>(lines, rule.x, v);
  const A log_sum = log(stats.sum), s = rule.smoothing;
  A smooth = A(0);
  if (s != A(0)) {
    for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
      if (!ONE) lines.load_slots(rule.x + lines.base, first, A(0), v);
      lines.template for_each_slot<T>(first, [&](int i, int64_t j) {
        smooth += rule.weight_of(j) * ((stats.top - v[i]) + log_sum);
      });
    }
    smooth = lines.reduce(smooth, Sum());
  }
  if (!lines.valid || lines.rank != 0) return;
  const int64_t t = rule.target[lines.line];
  A result = A(0);
  if (t != rule.ignore_index) {
    const A logit = widen(rule.x[lines.base + t * lines.step()]);
    result = rule.weight_of(t) * ((stats.top - logit) + log_sum);
    if (s != A(0)) result = (A(1) - s) * result + rule.soft * smooth;
  }
  loss[lines.line] = narrow<T>(result);
}

template <class T, class Lines, bool ONE>
__global__ void __launch_bounds__(Lines::kThreads, 1)
    cross_entropy_dgrad_kernel(CrossEntropyRule<T> rule, const T* grad_loss, T* grad_x) {
  using A = Acc<T>;
  if (*rule.bad >= 0) return;
  const Lines lines(rule.shape);
  Slots<T> v;
  const LineStats<A> stats = line_stats<ONE>(lines, rule.x, v);
  const int64_t t = lines.valid ? rule.target[lines.line] : rule.ignore_index;
  const bool ignored = t == rule.ignore_index;
  const A g = ignored ? A(0) : widen(grad_loss[lines.line]), s = rule.smoothing;
  const A hard = ignored ? A(0) : (A(1) - s) * rule.weight_of(t), soft = rule.soft;
  A total = A(0);  // of the weights, for the smoothed part only
  if (s != A(0)) {
    for (int64_t j = lines.rank; j < lines.end; j += lines.ranks()) total += rule.weight_of(j);
    total = lines.reduce(total, Sum());
  }
  const A scale = g * (hard + soft * total) * (A(1) / stats.sum);
  for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
    if (!ONE) lines.load_slots(rule.x + lines.base, first, A(0), v);
    lines.template for_each_slot<T>(first, [&](int i, int64_t j) {
      const A flat = s == A(0) ? A(0) : g * soft * rule.weight_of(j);
      const A value = scale * exp(v[i] - stats.top) - flat - (j == t ? g * hard : A(0));
      v[i] = ignored ? A(0) : value;
    });
    lines.store_slots(grad_x + lines.base, first, v);
  }
}

// Checks the targets, then calls body<Lines, ONE>(rule).
template <class T, class Body>
static void run_cross_entropy(const CrossEntropyArgs<T>& args, bool wide, Body body) {
  const LineShape lines{args.n, args.c, args.inner};
  launch(bad_target_kernel<T>, grid_size(ceil_div(lines.lines(), 256)), 256, 0, args.target,
         lines.lines(), args.c, args.ignore_index, args.bad);
  CrossEntropyRule<T> rule{
      {},          args.ignore_index, Acc<T>(args.label_smoothing), Acc<T>(0), args.x, args.target,
      args.weight, args.bad};
  rule.soft = rule.smoothing / Acc<T>(args.c);
  wide = wide && args.c % kWide<T> == 0;
  visit_lines<T>(lines, wide, [&]<class Lines, bool ONE>(const LineShape& shape) {
    rule.shape = shape;
    body.template operator()<Lines, ONE>(rule, line_grid<Lines>(shape));
  });
}

template <class T>
void cross_entropy_fprop_fused(const CrossEntropyArgs<T>& args) {
  run_cross_entropy(args, is_wide(args.x),
                    [&]<class Lines, bool ONE>(const CrossEntropyRule<T>& rule, dim3 grid) {
                      launch(cross_entropy_fprop_kernel<T, Lines, ONE>, grid,
                             Lines::threads(rule.shape), 0, rule, args.result);
                    });
}

template <class T>
void cross_entropy_dgrad_fused(const CrossEntropyArgs<T>& args) {
  run_cross_entropy(args, is_wide(args.x, args.result),
                    [&]<class Lines, bool ONE>(const CrossEntropyRule<T>& rule, dim3 grid) {
                      launch(cross_entropy_dgrad_kernel<T, Lines, ONE>, grid,
                             Lines::threads(rule.shape), 0, rule, args.grad_loss, args.result);
                    });
}

LAMINA_CUDA_INSTANTIATE(softmax_fprop_lines, SoftmaxArgs)
LAMINA_CUDA_INSTANTIATE(softmax_dgrad_lines, SoftmaxArgs)
LAMINA_CUDA_INSTANTIATE(cross_entropy_fprop_fused, CrossEntropyArgs)
LAMINA_CUDA_INSTANTIATE(cross_entropy_dgrad_fused, CrossEntropyArgs)

}  // namespace lamina::cuda
