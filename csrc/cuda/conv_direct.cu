// conv, direct: the sum itself, blocked in registers over output channels and positions.
// See cuda/direct.h for the method. The bias gradient sums a channel of grad_y.
#include "cuda/direct.h"
#include "cuda/instantiate.h"

namespace lamina::cuda {

using ops::ConvArgs;

template <class T>
void conv_fprop_direct(const ConvArgs<T>& args) {
  direct_fprop(args);
}

template <class T>
void conv_dgrad_direct(const ConvArgs<T>& args) {
  direct_dgrad(args);
}

template <class T>
void conv_wgrad_direct(const ConvArgs<T>& args) {
  constexpr int kOutputs = 4 * kWide<Acc<T>>;
  if (!fits_int(args.shape))
    run_direct_wgrad<int64_t, 4, 4>(args);
  else if (args.shape.k_per_group() > 4)
    run_direct_wgrad<int, kOutputs, 4>(args);
  else
    run_direct_wgrad<int, 4, 4>(args);
}

// ---- bgrad

static constexpr int kThreads = 256;

// The sum over part blockIdx.x / k of the positions of channel blockIdx.x % k. A thread adds up
// kWide elements at a time, WIDE: loaded as one, when they divide a plane and a part.
template <class T, bool WIDE>
__global__ void __launch_bounds__(kThreads)
    conv_bgrad_kernel(const T* grad_y, T* result, Acc<T>* partial, int64_t channels, int64_t plane,
                      int64_t positions, int64_t part_size) {
  using A = Acc<T>;
  constexpr int kLanes = kWide<T>;
  const int64_t k = blockIdx.x % channels, part = blockIdx.x / channels;
  const int64_t end = min((part + 1) * part_size, positions);
  A sum = 0;
  // Stretches of one image each.
  for (int64_t begin = part * part_size; begin < end;) {
    const int64_t n = begin / plane, stop = min((n + 1) * plane, end);
    const T* source = grad_y + (n * (channels - 1) + k) * plane;
    for (int64_t m = begin + threadIdx.x * kLanes; m < stop; m += kThreads * kLanes) {
      if constexpr (WIDE) {
        const Vector<T, kLanes> vector = load<T, kLanes>(source + m);
#pragma unroll
        for (int i = 0; i < kLanes; ++i) sum += widen(vector.element[i]);
      } else {
        for (int i = 0; i < kLanes && m + i < stop; ++i) sum += widen(source[m + i]);
      }
    }
    begin = stop;
  }
  sum = block_reduce<kThreads>(sum, Sum());
  if (threadIdx.x == 0) {
    if (partial)
      partial[blockIdx.x] = sum;
    else
      result[k] = narrow<T>(sum);
  }
}

template <class T>
void conv_bgrad_direct(const ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  constexpr int kLanes = kWide<T>;
  const ConvSplit split = conv_bgrad_split(s).in(args.workspace);
  Acc<T>* partial = split.parts > 1 ? reinterpret_cast<Acc<T>*>(args.workspace) : nullptr;
  const int64_t plane = s.out_size();
  const bool wide = is_wide(args.grad_y) && plane % kLanes == 0 && split.part_size % kLanes == 0;
  launch(wide ? conv_bgrad_kernel<T, true> : conv_bgrad_kernel<T, false>,
         grid_size(s.k * split.parts), kThreads, 0, args.grad_y, args.result, partial, s.k, plane,
         s.n * plane, split.part_size);
  if (partial) add_partial_sums<T>(partial, args.result, s.k, split.parts);
}

LAMINA_CUDA_INSTANTIATE(conv_fprop_direct, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_dgrad_direct, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_wgrad_direct, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_bgrad_direct, ConvArgs)

}  // namespace lamina::cuda
