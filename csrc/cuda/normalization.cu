// Batch, group, layer and instance norm: y = (x - mean) / sqrt(var + eps) * weight + bias.
//
// Method        statistics of lines (planes, rows, or columns where inner is 1) or of parts of long
//               lines, a second kernel for the sets that consist of several, a third one for the
//               result. Rows that fit into registers are read once and need one kernel.
// Partitioning  device/lines.h; parts follow from the shape, partial results are combined in order.
// Numerics      a thread takes mean and squared deviations of what it holds in registers; threads,
//               parts and lines are combined by Chan, Golub & LeVeque 1983, so that nothing
//               cancels.
// Floor         one read and one write of the tensor (gradient: two reads), and one read (two) more
//               where statistics come first.
#include "cuda/device/line_norm.h"
#include "cuda/instantiate.h"
#include "ops/normalization.h"

namespace lamina::cuda {

using ops::BatchNormArgs;
using ops::GroupNormArgs;

// ---- batch norm: the lines are planes, or columns where a plane is one element

template <class T>
struct BatchNormPlan {
  LineShape shape;
  LineOwner owner;
  bool wide;

  template <class... Pointers>
  explicit BatchNormPlan(const BatchNormArgs<T>& args, Pointers... pointers)
      : shape(args.inner == 1 ? LineShape{1, args.n, args.c}
                              : LineShape{args.n * args.c, args.inner, 1}),
        owner{1, args.c, args.c},
        wide(args.inner % kWide<T> == 0 && is_wide(pointers...)) {}
};

template <class T>
void batch_norm_fprop_channels(const BatchNormArgs<T>& args) {
  using A = Acc<T>;
  const BatchNormPlan<T> plan(args, args.x, args.result);
  const Statistics<T> statistics{args.mean, args.var, A(args.eps), false};
  visit_parts<T>(plan.shape, plan.wide, [&]<class Lines>(const LineShape& shape) {
    const dim3 grid = line_grid<Lines>(shape);
    if (args.training) {
      const LineShape pieces = pieces_of<T>(shape, args.c);
      const int64_t count = pieces.axis * args.c;
      const Workspace partial(2 * count * static_cast<int64_t>(sizeof(A)));
      A *means = partial.get<A>(), *squares = means + count;
      launch(line_moments_kernel<T, Lines>, grid, Lines::threads(shape), 0, shape, args.x, means,
             squares);
      launch(combine_moments_kernel<T>, line_grid<Columns>(pieces), Columns::kThreads, 0, pieces,
             shape, shape.lines() / args.c, A(args.n * args.inner), means, squares, A(args.eps),
             args.mean, args.var, false);
    }
    launch(apply_kernel<T, Lines>, grid, Lines::threads(shape), 0, shape.second_reading(),
           plan.owner, statistics, args.weight, args.bias, args.x, args.result);
  });
}

template <class T>
void batch_norm_dgrad_channels(const BatchNormArgs<T>& args) {
  using A = Acc<T>;
  const BatchNormPlan<T> plan(args, args.x, args.grad_y, args.result);
  const Statistics<T> statistics{args.mean, args.var, A(args.eps), false};
  visit_parts<T>(plan.shape, plan.wide, [&]<class Lines>(const LineShape& shape) {
    const dim3 grid = line_grid<Lines>(shape);
    const LineShape pieces = pieces_of<T>(shape, args.c);
    const int64_t count = pieces.axis * args.c;
    const Workspace partial(2 * (count + args.c) * static_cast<int64_t>(sizeof(A)));
    A *sums = partial.get<A>(), *dots = sums + count;
    Coefficients<T> coefficients{nullptr, nullptr};
    if (args.training) coefficients = {dots + count, dots + count + args.c};
    launch(line_sums_kernel<T, Lines>, grid, Lines::threads(shape), 0, shape, plan.owner,
           statistics, args.grad_y, args.x, sums, dots);
    launch(channel_sums_kernel<T>, line_grid<Columns>(pieces), Columns::kThreads, 0, pieces,
           plan.owner, statistics, false, sums, dots, args.weight, A(args.n * args.inner),
           coefficients, args.grad_weight, args.grad_bias);
    launch(gradient_kernel<T, Lines>, grid, Lines::threads(shape), 0, shape.second_reading(),
           plan.owner, statistics, coefficients, args.weight, args.grad_y, args.x, args.result);
  });
}

// ---- group norm: rows that one block reads, their weights element by element

template <class T>
struct RowWeights {
  const T* weight;
  const T* bias;
  int64_t groups, channels, inner;

  __device__ __forceinline__ int64_t first_channel(int64_t row) const {
    return remainder_of(row, groups) * channels;
  }
};

// v = v * weight + bias of the slots' channels, bias if `biased`; `channel` is the row's first.
// Rows with inner > 1 are short.
template <class T, class Lines>
__device__ __forceinline__ void weigh_slots(const Lines& lines, const RowWeights<T>& weights,
                                            int64_t channel, int64_t first, bool biased,
                                            Slots<T>& v) {
  using A = Acc<T>;
  Slots<T> w;
  if (weights.inner == 1) {
    if (weights.weight) {
      lines.load_slots(weights.weight + channel, first, A(1), w);
#pragma unroll
      for (int i = 0; i < kSlots<T>; ++i) v[i] *= w[i];
    }
    if (biased && weights.bias) {
      lines.load_slots(weights.bias + channel, first, A(0), w);
#pragma unroll
      for (int i = 0; i < kSlots<T>; ++i) v[i] += w[i];
    }
  } else if (weights.weight || weights.bias) {
    lines.template for_each_slot<T>(first, [&](int i, int64_t j) {
      const int64_t c = channel + static_cast<uint32_t>(j) / static_cast<uint32_t>(weights.inner);
      v[i] *= or_one(weights.weight, c);
      if (biased) v[i] += or_zero(weights.bias, c);
    });
  }
}

// One block is enough: left to itself, the compiler would spill to fit in more.
template <class T, class Lines, bool ONE>
__global__ void __launch_bounds__(Lines::kThreads, 1)
    row_norm_kernel(LineShape shape, RowWeights<T> weights, Acc<T> eps, const T* x, T* y,
                    Acc<T>* means, Acc<T>* rstds) {
  using A = Acc<T>;
  const Lines lines(shape);
  const int64_t channel = weights.first_channel(lines.line);
  const A size = A(lines.end);
  Slots<T> v;
  A mean, squares = A(0);
  if (ONE) {
    lines.load_slots(x + lines.base, 0, A(0), v);
    A sum = A(0);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) sum += v[i];
    mean = lines.reduce(sum, Sum()) / size;
    lines.template for_each_slot<T>(
        0, [&](int i, int64_t) { squares += (v[i] - mean) * (v[i] - mean); });
    squares = lines.reduce(squares, Sum());
  } else {
    const Moments<A> moments = thread_moments(lines, x).over(lines, size);
    mean = moments.mean, squares = moments.squares;
  }
  const A rstd = A(1) / sqrt(squares / size + eps);
  if (lines.valid && lines.rank == 0) means[lines.line] = mean, rstds[lines.line] = rstd;
  for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
    if (!ONE) lines.load_slots(x + lines.base, first, A(0), v);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) v[i] = (v[i] - mean) * rstd;
    weigh_slots(lines, weights, channel, first, true, v);
    lines.store_slots(y + lines.base, first, v);
  }
}

// inner == 1: grad_x of a row.
template <class T, class Lines, bool ONE>
__global__ void __launch_bounds__(Lines::kThreads, 1)
    row_gradient_kernel(LineShape shape, RowWeights<T> weights, Statistics<T> statistics,
                        const T* grad_y, const T* x, T* grad_x) {
  using A = Acc<T>;
  const Lines lines(shape);
  const int64_t channel = weights.first_channel(lines.line);
  const A mean = lines.valid ? statistics.mean[lines.line] : A(0);
  const A rstd = lines.valid ? statistics.rstd(lines.line) : A(0);
  Slots<T> g, v;
  A sum = A(0), dot = A(0);
  for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
    lines.load_slots(grad_y + lines.base, first, A(0), g);
    lines.load_slots(x + lines.base, first, mean, v);
    weigh_slots(lines, weights, channel, first, false, g);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) sum += g[i], dot += g[i] * (v[i] - mean);
  }
  const A size = A(lines.end);
  const A of_dot = rstd * rstd * rstd * lines.reduce(dot, Sum()) / size;
  const A of_sum = rstd * lines.reduce(sum, Sum()) / size;
  for (int64_t first = 0; first < (ONE ? 1 : lines.end); first += lines.ranks() * kSlots<T>) {
    if (!ONE) {
      lines.load_slots(grad_y + lines.base, first, A(0), g);
      lines.load_slots(x + lines.base, first, mean, v);
      weigh_slots(lines, weights, channel, first, false, g);
    }
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) g[i] = rstd * g[i] - ((v[i] - mean) * of_dot + of_sum);
    lines.store_slots(grad_x + lines.base, first, g);
  }
}

// inner == 1: sums and dots [part][channel] over the rows of [outer][channels of all groups].
template <class T>
__global__ void __launch_bounds__(Columns::kThreads)
    element_sums_kernel(LineShape shape, int64_t groups, int64_t channels, Statistics<T> statistics,
                        const T* grad_y, const T* x, Acc<T>* sums, Acc<T>* dots) {
  using A = Acc<T>;
  const Columns lines(shape);
  const int64_t group = lines.valid ? quotient_of(lines.line, channels) : 0;
  A sum = A(0), dot = A(0);
  Slots<T> g, v;
  for (int64_t first = lines.begin; first < lines.end; first += lines.ranks() * kSlots<T>) {
    lines.load_slots(grad_y + lines.base, first, A(0), g);
    lines.load_slots(x + lines.base, first, A(0), v);
    lines.template for_each_slot<T>(first, [&](int i, int64_t o) {
      const int64_t row = o * groups + group;
      sum += g[i];
      dot += g[i] * ((v[i] - statistics.mean[row]) * statistics.rstd(row));
    });
  }
  sum = lines.reduce(sum, Sum()), dot = lines.reduce(dot, Sum());
  if (!lines.valid || lines.rank != 0) return;
  const int64_t at = blockIdx.y * shape.lines() + lines.line;
  sums[at] = sum, dots[at] = dot;
}

template <class T>
void group_norm_fprop_rows(const GroupNormArgs<T>& args) {
  using A = Acc<T>;
  const LineShape rows{args.outer * args.groups, args.channels * args.inner, 1};
  const bool wide = is_wide(args.x, args.result);
  if (args.inner == 1 || rows.axis <= kLineInRegisters<T>) {
    const RowWeights<T> weights{args.weight, args.bias, args.groups, args.channels, args.inner};
    const bool weights_wide = args.inner != 1 || is_wide(args.weight, args.bias);
    visit_lines<T>(rows, wide && weights_wide && rows.axis % kWide<T> == 0,
                   [&]<class Lines, bool ONE>(const LineShape& shape) {
                     if constexpr (!std::is_same_v<Lines, Columns>)
                       launch(row_norm_kernel<T, Lines, ONE>, line_grid<Lines>(shape),
                              Lines::threads(shape), 0, shape, weights, A(args.eps), args.x,
                              args.result, args.mean, args.rstd);
                   });
    return;
  }
  visit_parts<T>(rows, wide && rows.axis % kWide<T> == 0, [&]<class Lines>(const LineShape& shape) {
    const LineShape pieces = pieces_of<T>(shape, rows.outer);
    const int64_t count = pieces.axis * rows.outer;
    const Workspace partial(2 * count * static_cast<int64_t>(sizeof(A)));
    A *means = partial.get<A>(), *squares = means + count;
    launch(line_moments_kernel<T, Lines>, line_grid<Lines>(shape), Lines::threads(shape), 0, shape,
           args.x, means, squares);
    launch(combine_moments_kernel<T>, line_grid<Columns>(pieces), Columns::kThreads, 0, pieces,
           shape, int64_t{1}, A(rows.axis), means, squares, A(args.eps), args.mean, args.rstd,
           true);
  });
  const LineShape planes{rows.outer * args.channels, args.inner, 1};
  const LineOwner owner{args.channels, rows.outer, args.groups * args.channels};
  const Statistics<T> statistics{args.mean, args.rstd, A(args.eps), true};
  visit_parts<T>(planes, wide && args.inner % kWide<T> == 0,
                 [&]<class Lines>(const LineShape& shape) {
                   launch(apply_kernel<T, Lines>, line_grid<Lines>(shape), Lines::threads(shape), 0,
                          shape.second_reading(), owner, statistics, args.weight, args.bias, args.x,
                          args.result);
                 });
}

// inner > 1: the lines are planes.
template <class T>
static void group_norm_planes_dgrad(const GroupNormArgs<T>& args, const Statistics<T>& statistics) {
  using A = Acc<T>;
  const int64_t rows = args.outer * args.groups, all = args.groups * args.channels;
  const LineOwner owner{args.channels, rows, all};
  const LineShape planes{rows * args.channels, args.inner, 1};
  const A size = A(args.channels * args.inner);
  const bool wide = args.inner % kWide<T> == 0 && is_wide(args.x, args.grad_y, args.result);
  visit_parts<T>(planes, wide, [&]<class Lines>(const LineShape& shape) {
    const dim3 grid = line_grid<Lines>(shape);
    const LineShape pieces = pieces_of<T>(shape, all);
    const int64_t count = pieces.axis * all;
    const Workspace partial(2 * (count + rows) * static_cast<int64_t>(sizeof(A)));
    A *sums = partial.get<A>(), *dots = sums + count;
    const Coefficients<T> coefficients{dots + count, dots + count + rows}, none{nullptr, nullptr};
    launch(line_sums_kernel<T, Lines>, grid, Lines::threads(shape), 0, shape, owner, statistics,
           args.grad_y, args.x, sums, dots);
    launch(row_coefficients_kernel<T>, grid_size(ceil_div(rows, kRowThreads / 32)), kRowThreads, 0,
           rows, shape.parts(), args.channels, args.groups, statistics, sums, dots, args.weight,
           size, coefficients);
    launch(channel_sums_kernel<T>, line_grid<Columns>(pieces), Columns::kThreads, 0, pieces, owner,
           statistics, false, sums, dots, args.weight, size, none, args.grad_weight,
           args.grad_bias);
    launch(gradient_kernel<T, Lines>, grid, Lines::threads(shape), 0, shape.second_reading(), owner,
           statistics, coefficients, args.weight, args.grad_y, args.x, args.result);
  });
}

template <class T>
void group_norm_dgrad_rows(const GroupNormArgs<T>& args) {
  using A = Acc<T>;
  const Statistics<T> statistics{args.mean, args.rstd, A(args.eps), true};
  if (args.inner != 1) return group_norm_planes_dgrad(args, statistics);
  const LineShape rows{args.outer * args.groups, args.channels, 1};
  const RowWeights<T> weights{args.weight, nullptr, args.groups, args.channels, 1};
  const bool wide =
      args.channels % kWide<T> == 0 && is_wide(args.x, args.grad_y, args.weight, args.result);
  visit_lines<T>(rows, wide, [&]<class Lines, bool ONE>(const LineShape& shape) {
    if constexpr (!std::is_same_v<Lines, Columns>)
      launch(row_gradient_kernel<T, Lines, ONE>, line_grid<Lines>(shape), Lines::threads(shape), 0,
             shape, weights, statistics, args.grad_y, args.x, args.result);
  });
  LineShape columns{1, args.outer, args.groups * args.channels};
  columns.width_log2 = Columns::choose_width_log2(columns, kSlots<T>);
  choose_parts(columns, Columns::blocks(columns),
               (Columns::kThreads >> columns.width_log2) * kSlots<T>);
  const LineShape pieces = pieces_of<T>(columns, columns.inner);
  const int64_t count = pieces.axis * columns.inner;
  const Workspace partial(2 * count * static_cast<int64_t>(sizeof(A)));
  A *sums = partial.get<A>(), *dots = sums + count;
  launch(element_sums_kernel<T>, line_grid<Columns>(columns), Columns::kThreads, 0, columns,
         args.groups, args.channels, statistics, args.grad_y, args.x, sums, dots);
  launch(channel_sums_kernel<T>, line_grid<Columns>(pieces), Columns::kThreads, 0, pieces,
         LineOwner{}, statistics, true, sums, dots, args.weight, A(1),
         Coefficients<T>{nullptr, nullptr}, args.grad_weight, args.grad_bias);
}

LAMINA_CUDA_INSTANTIATE(batch_norm_fprop_channels, BatchNormArgs)
LAMINA_CUDA_INSTANTIATE(batch_norm_dgrad_channels, BatchNormArgs)
LAMINA_CUDA_INSTANTIATE(group_norm_fprop_rows, GroupNormArgs)
LAMINA_CUDA_INSTANTIATE(group_norm_dgrad_rows, GroupNormArgs)

}  // namespace lamina::cuda
