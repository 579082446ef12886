// Normalisation line by line (device/lines.h): statistics and sums over lines, the results from
// them. A set of elements with one mean consists of one line, of parts of one, or of several.
#pragma once

#include "cuda/device/index.h"
#include "cuda/device/lines.h"

namespace lamina::cuda {

// Which statistics and which channel a line belongs to.
struct LineOwner {
  int64_t per_set = 1, sets = 1, channels = 1;

  __device__ __forceinline__ int64_t set(int64_t line) const {
    return remainder_of(quotient_of(line, per_set), sets);
  }
  __device__ __forceinline__ int64_t channel(int64_t line) const {
    return remainder_of(line, channels);
  }
};

template <class T>
__device__ __forceinline__ Acc<T> or_one(const T* weight, int64_t channel) {
  return weight ? widen(weight[channel]) : Acc<T>(1);
}
template <class T>
__device__ __forceinline__ Acc<T> or_zero(const T* bias, int64_t channel) {
  return bias ? widen(bias[channel]) : Acc<T>(0);
}

// Mean and sum of squared deviations of `count` values.
template <class A>
struct Moments {
  A count, mean, squares;

  __device__ __forceinline__ void add(const Moments& other) {
    const A total = count + other.count;
    if (other.count == A(0)) return;
    const A delta = other.mean - mean, share = other.count / total;
    squares += other.squares + delta * delta * count * share;
    mean += delta * share;
    count = total;
  }
  // Over the threads of a line; `total` is the sum of their counts.
  template <class Lines>
  __device__ __forceinline__ Moments over(const Lines& lines, A total) const {
    const A line_mean = lines.reduce(count * mean, Sum()) / total, delta = mean - line_mean;
    return {total, line_mean, lines.reduce(squares + count * delta * delta, Sum())};
  }
};

// ---- statistics of a line

template <class T, class Lines>
__device__ __forceinline__ Moments<Acc<T>> thread_moments(const Lines& lines, const T* x) {
  using A = Acc<T>;
  Moments<A> moments{A(0), A(0), A(0)};
  Slots<T> v;
  for (int64_t first = lines.begin; first < lines.end; first += lines.ranks() * kSlots<T>) {
    lines.load_slots(x + lines.base, first, A(0), v);
    Moments<A> batch{A(0), A(0), A(0)};
    A sum = A(0);
    lines.template for_each_slot<T>(first, [&](int i, int64_t) {
      batch.count += A(1);
      sum += v[i];
    });
    batch.mean = sum / fmax(batch.count, A(1));
    lines.template for_each_slot<T>(
        first, [&](int i, int64_t) { batch.squares += (v[i] - batch.mean) * (v[i] - batch.mean); });
    moments.add(batch);
  }
  return moments;
}

// means and squares [part][line]. One block in the bounds, or ptxas spills to fit in more.
template <class T, class Lines>
__global__ void __launch_bounds__(Lines::kThreads, 1)
    line_moments_kernel(LineShape shape, const T* x, Acc<T>* means, Acc<T>* squares) {
  using A = Acc<T>;
  const Lines lines(shape);
  const Moments<A> moments = thread_moments(lines, x).over(lines, A(lines.end - lines.begin));
  if (!lines.valid || lines.rank != 0) return;
  const int64_t at = blockIdx.y * shape.lines() + lines.line;
  means[at] = moments.mean, squares[at] = moments.squares;
}

// Set s consists of pieces [pieces][sets]; piece k has the size of part k / per_part.
template <class T>
__global__ void __launch_bounds__(Columns::kThreads)
    combine_moments_kernel(LineShape pieces, LineShape lines_of, int64_t per_part, Acc<T> total,
                           const Acc<T>* means, const Acc<T>* squares, Acc<T> eps, Acc<T>* mean,
                           Acc<T>* spread, bool reciprocal) {
  using A = Acc<T>;
  const Columns lines(pieces);
  Moments<A> moments{A(0), A(0), A(0)};
  if (lines.valid)
    for (int64_t k = lines.rank; k < pieces.axis; k += lines.ranks()) {
      const int64_t begin = quotient_of(k, per_part) * lines_of.part;
      const A count = A(min(lines_of.part, lines_of.axis - begin));
      const int64_t at = lines.base + k * pieces.inner;
      moments.add({count, means[at], squares[at]});
    }
  moments = moments.over(lines, total);
  if (!lines.valid || lines.rank != 0) return;
  const A var = moments.squares / total;
  mean[lines.line] = moments.mean;
  spread[lines.line] = reciprocal ? A(1) / sqrt(var + eps) : var;
}

// ---- the result, line by line

// The statistics of all sets; spread holds variances, or 1 / sqrt(var + eps).
template <class T>
struct Statistics {
  const Acc<T>* mean;
  const Acc<T>* spread;
  Acc<T> eps;
  bool reciprocal;

  __device__ __forceinline__ Acc<T> rstd(int64_t set) const {
    return reciprocal ? spread[set] : Acc<T>(1) / sqrt(spread[set] + eps);
  }
};

template <class T, class Lines>
__global__ void __launch_bounds__(Lines::kThreads)
    apply_kernel(LineShape shape, LineOwner owner, Statistics<T> statistics, const T* weight,
                 const T* bias, const T* x, T* y) {
  using A = Acc<T>;
  const Lines lines(shape);
  if (!lines.valid) return;
  const int64_t set = owner.set(lines.line), channel = owner.channel(lines.line);
  const A mean = statistics.mean[set], shift = or_zero(bias, channel);
  const A scale = statistics.rstd(set) * or_one(weight, channel);
  Slots<T> v;
  for (int64_t first = lines.begin; first < lines.end; first += lines.ranks() * kSlots<T>) {
    lines.load_slots(x + lines.base, first, A(0), v);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) v[i] = (v[i] - mean) * scale + shift;
    lines.store_slots(y + lines.base, first, v);
  }
}

// ---- gradients: sums of grad_y and of grad_y (x - mean) over lines

// sums and dots [part][line].
template <class T, class Lines>
__global__ void __launch_bounds__(Lines::kThreads)
    line_sums_kernel(LineShape shape, LineOwner owner, Statistics<T> statistics, const T* grad_y,
                     const T* x, Acc<T>* sums, Acc<T>* dots) {
  using A = Acc<T>;
  const Lines lines(shape);
  const A mean = lines.valid ? statistics.mean[owner.set(lines.line)] : A(0);
  A sum = A(0), dot = A(0);
  Slots<T> g, v;
  for (int64_t first = lines.begin; first < lines.end; first += lines.ranks() * kSlots<T>) {
    lines.load_slots(grad_y + lines.base, first, A(0), g);
    lines.load_slots(x + lines.base, first, mean, v);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) sum += g[i], dot += g[i] * (v[i] - mean);
  }
  sum = lines.reduce(sum, Sum()), dot = lines.reduce(dot, Sum());
  if (!lines.valid || lines.rank != 0) return;
  const int64_t at = blockIdx.y * shape.lines() + lines.line;
  sums[at] = sum, dots[at] = dot;
}

// What grad_x takes from the sums of a set: grad_x = slope grad_y - ((x - mean) of_dot + of_sum).
template <class T>
struct Coefficients {
  Acc<T>* of_dot;
  Acc<T>* of_sum;
};

// grad_bias and grad_weight from pieces [pieces][channels]. Batch norm also gets its coefficients
// here: its sets are the channels. `scaled`: dots hold rstd already.
template <class T>
__global__ void __launch_bounds__(Columns::kThreads)
    channel_sums_kernel(LineShape pieces, LineOwner owner, Statistics<T> statistics, bool scaled,
                        const Acc<T>* sums, const Acc<T>* dots, const T* weight, Acc<T> set_size,
                        Coefficients<T> coefficients, T* grad_weight, T* grad_bias) {
  using A = Acc<T>;
  const Columns lines(pieces);
  A sum = A(0), dot = A(0);
  if (lines.valid)
    for (int64_t k = lines.rank; k < pieces.axis; k += lines.ranks()) {
      const int64_t at = lines.base + k * pieces.inner;
      sum += sums[at];
      dot += scaled ? dots[at] : dots[at] * statistics.rstd(owner.set(at));
    }
  sum = lines.reduce(sum, Sum()), dot = lines.reduce(dot, Sum());
  if (!lines.valid || lines.rank != 0) return;
  const int64_t channel = lines.line;
  grad_bias[channel] = narrow<T>(sum), grad_weight[channel] = narrow<T>(dot);
  if (!coefficients.of_dot) return;
  const A rstd = statistics.rstd(channel), slope = rstd * or_one(weight, channel);
  coefficients.of_dot[channel] = slope * rstd * dot / set_size;
  coefficients.of_sum[channel] = slope * sum / set_size;
}

// The coefficients of a row of planes, a warp a row.
static constexpr int kRowThreads = 256;
template <class T>
__global__ void __launch_bounds__(kRowThreads)
    row_coefficients_kernel(int64_t rows, int64_t parts, int64_t channels, int64_t groups,
                            Statistics<T> statistics, const Acc<T>* sums, const Acc<T>* dots,
                            const T* weight, Acc<T> set_size, Coefficients<T> coefficients) {
  using A = Acc<T>;
  const int64_t row = int64_t{blockIdx.x} * (kRowThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  A sum = A(0), dot = A(0);
  if (row < rows) {
    const int64_t first = remainder_of(row, groups) * channels;
    for (int64_t part = 0; part < parts; ++part)
      for (int64_t c = lane; c < channels; c += 32) {
        const int64_t at = (part * rows + row) * channels + c;
        sum += or_one(weight, first + c) * sums[at];
        dot += or_one(weight, first + c) * dots[at];
      }
  }
  sum = warp_reduce(sum, Sum()), dot = warp_reduce(dot, Sum());
  if (row >= rows || lane != 0) return;
  const A rstd = statistics.rstd(row);
  coefficients.of_dot[row] = rstd * rstd * rstd * dot / set_size;
  coefficients.of_sum[row] = rstd * sum / set_size;
}

template <class T, class Lines>
__global__ void __launch_bounds__(Lines::kThreads)
    gradient_kernel(LineShape shape, LineOwner owner, Statistics<T> statistics,
                    Coefficients<T> coefficients, const T* weight, const T* grad_y, const T* x,
                    T* grad_x) {
  using A = Acc<T>;
  const Lines lines(shape);
  if (!lines.valid) return;
  const int64_t set = owner.set(lines.line);
  const A slope = statistics.rstd(set) * or_one(weight, owner.channel(lines.line));
  const bool fixed = !coefficients.of_dot;  // statistics that do not depend on x
  const A mean = fixed ? A(0) : statistics.mean[set];
  const A of_dot = fixed ? A(0) : coefficients.of_dot[set];
  const A of_sum = fixed ? A(0) : coefficients.of_sum[set];
  Slots<T> g, v;
  for (int64_t first = lines.begin; first < lines.end; first += lines.ranks() * kSlots<T>) {
    lines.load_slots(grad_y + lines.base, first, A(0), g);
    if (!fixed) lines.load_slots(x + lines.base, first, A(0), v);
#pragma unroll
    for (int i = 0; i < kSlots<T>; ++i) {
      g[i] *= slope;
      if (!fixed) g[i] -= (v[i] - mean) * of_dot + of_sum;
    }
    lines.store_slots(grad_x + lines.base, first, g);
  }
}

// The pieces of lines that kernels with parts have written: [parts * lines / channels][channels].
template <class T>
LineShape pieces_of(const LineShape& lines, int64_t channels) {
  const int64_t pieces = channels ? lines.parts() * (lines.lines() / channels) : 0;
  LineShape shape{1, pieces, channels};
  shape.width_log2 = Columns::choose_width_log2(shape, kSlots<T>);
  return shape;
}

}  // namespace lamina::cuda
