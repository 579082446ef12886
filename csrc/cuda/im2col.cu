// im2col and col2im: the unrolled input of a convolution, and the gather that is its gradient.
//
// Method        im2col: a thread owns an output position of a plane and copies the value under each
//               tap, so that neighbours read and write neighbours. col2im: a thread owns a position
//               of x and adds up the (tap, position) pairs that read it, by steps that need no
//               division: r = first + t * step meets o = highest - t * spread.
// Partitioning  256 positions a block, over all planes.
// Numerics      col2im adds taps in order: no atomics.
// Floor         the matrix once through memory; x comes from the caches.
#include "cuda/device/finish.h"
#include "cuda/device/launch.h"
#include "cuda/im2col.h"
#include "cuda/instantiate.h"
#include "shared/conv_phase.h"

namespace lamina::cuda {

using ops::ConvArgs;
using ops::ConvShape;

static constexpr int kThreads = 256;

// Index is int where all coordinates and all positions of the planes fit, else int64_t.
template <class Index>
struct Unrolling {
  Index in[3], out[3], kernel[3], stride[3], pad[3], dilation[3];
  Index step[3], spread[3];  // between the taps that meet a position of x, and their outputs
  Index in_size, out_size, taps;

  explicit Unrolling(const ConvShape& s)
      : in_size(static_cast<Index>(s.in_size())),
        out_size(static_cast<Index>(s.out_size())),
        taps(static_cast<Index>(s.kernel_size())) {
    for (int axis = 0; axis < 3; ++axis) {
      in[axis] = static_cast<Index>(s.in[axis]), out[axis] = static_cast<Index>(s.out[axis]);
      kernel[axis] = static_cast<Index>(s.kernel[axis]);
      stride[axis] = static_cast<Index>(s.stride[axis]);
      pad[axis] = static_cast<Index>(s.pad[axis]);
      dilation[axis] = static_cast<Index>(s.dilation[axis]);
      const int64_t divisor = greatest_divisor(s.stride[axis], s.dilation[axis]);
      step[axis] = static_cast<Index>(s.stride[axis] / divisor);
      spread[axis] = static_cast<Index>(s.dilation[axis] / divisor);
    }
  }
};

static bool fits_int(const ConvShape& s, int64_t planes) {
  constexpr int64_t kMost = int64_t{1} << 30;
  for (int axis = 0; axis < 3; ++axis)
    if (s.in[axis] + s.pad[axis] + s.stride[axis] + s.kernel[axis] * s.dilation[axis] > kMost ||
        s.out[axis] * s.stride[axis] > kMost)
      return false;
  return planes * s.in_size() <= kMost && planes * s.out_size() <= kMost;
}

// Coordinates of a flat position.
template <class Index>
struct Place {
  Index at[3];
  __device__ __forceinline__ Place(Index flat, const Index (&extent)[3]) {
    const Index line = flat / extent[2];
    at[0] = line / extent[1], at[1] = line % extent[1], at[2] = flat % extent[2];
  }
};

template <class T, class Index>
__global__ void __launch_bounds__(kThreads)
    im2col_kernel(const Unrolling<Index> s, Index positions, const T* x, T* col) {
  const Index position =
      static_cast<Index>(blockIdx.x) * kThreads + static_cast<Index>(threadIdx.x);
  if (position >= positions) return;
  const int64_t plane = position / s.out_size;
  const Index o = position % s.out_size;
  x += plane * s.in_size;
  col += plane * s.taps * s.out_size + o;
  const Place<Index> place(o, s.out);
  Index first[3];  // of x, under the first tap
  for (int axis = 0; axis < 3; ++axis) first[axis] = place.at[axis] * s.stride[axis] - s.pad[axis];
  for (Index r0 = 0, i0 = first[0]; r0 < s.kernel[0]; ++r0, i0 += s.dilation[0])
    for (Index r1 = 0, i1 = first[1]; r1 < s.kernel[1]; ++r1, i1 += s.dilation[1]) {
      const bool inside = i0 >= 0 && i0 < s.in[0] && i1 >= 0 && i1 < s.in[1];
      const Index line = (i0 * s.in[1] + i1) * s.in[2];
      for (Index r2 = 0, i2 = first[2]; r2 < s.kernel[2]; ++r2, i2 += s.dilation[2]) {
        T value{};
        if (inside && i2 >= 0 && i2 < s.in[2]) value = x[line + i2];
        *col = value;
        col += s.out_size;
      }
    }
}

template <class T, class Col, class Index>
__global__ void __launch_bounds__(kThreads)
    col2im_kernel(const Unrolling<Index> s, Index positions, const Col* col, const T* bias,
                  int64_t channels, const Finish<T> finish, T* x) {
  const Index position =
      static_cast<Index>(blockIdx.x) * kThreads + static_cast<Index>(threadIdx.x);
  if (position >= positions) return;
  const int64_t plane = position / s.in_size;
  const Index i = position % s.in_size;
  col += plane * s.taps * s.out_size;
  const Place<Index> place(i, s.in);
  Index first[3], highest[3];  // the lowest tap that reads i, and from which output
  for (int axis = 0; axis < 3; ++axis) {
    const Index shifted = place.at[axis] + s.pad[axis];
    Index r = 0;
    while (r < s.step[axis] && (shifted - r * s.dilation[axis]) % s.stride[axis] != 0) ++r;
    const bool any = r < s.step[axis] && shifted >= r * s.dilation[axis];
    first[axis] = any ? r : s.kernel[axis];
    highest[axis] = any ? (shifted - r * s.dilation[axis]) / s.stride[axis] : 0;
  }
  Acc<T> sum = bias ? widen(bias[plane % channels]) : Acc<T>(0);
  for (Index r0 = first[0], o0 = highest[0]; r0 < s.kernel[0] && o0 >= 0;
       r0 += s.step[0], o0 -= s.spread[0])
    for (Index r1 = first[1], o1 = highest[1]; r1 < s.kernel[1] && o1 >= 0;
         r1 += s.step[1], o1 -= s.spread[1]) {
      if (o0 >= s.out[0] || o1 >= s.out[1]) continue;
      const Index line = (o0 * s.out[1] + o1) * s.out[2];
      const Col* row =
          col + static_cast<int64_t>((r0 * s.kernel[1] + r1) * s.kernel[2]) * s.out_size + line;
      for (Index r2 = first[2], o2 = highest[2]; r2 < s.kernel[2] && o2 >= 0;
           r2 += s.step[2], o2 -= s.spread[2])
        if (o2 < s.out[2]) sum += widen(row[static_cast<int64_t>(r2) * s.out_size + o2]);
    }
  x[position] = finish(sum, position);
}

template <class Index, class T>
static void run_im2col(const ConvShape& s, int64_t planes, const T* x, T* col) {
  const int64_t positions = planes * s.out_size();
  launch(im2col_kernel<T, Index>, grid_size(ceil_div(positions, kThreads)), kThreads, 0,
         Unrolling<Index>(s), static_cast<Index>(positions), x, col);
}

template <class T>
void im2col(const ConvShape& s, int64_t planes, const T* x, T* col) {
  fits_int(s, planes) ? run_im2col<int>(s, planes, x, col) : run_im2col<int64_t>(s, planes, x, col);
}

template <class Index, class T, class Col>
static void run_col2im(const ConvShape& s, int64_t planes, const Col* col, const T* bias,
                       int64_t channels, const ops::Epilogue<T>& epilogue, T* x) {
  const int64_t positions = planes * s.in_size();
  launch(col2im_kernel<T, Col, Index>, grid_size(ceil_div(positions, kThreads)), kThreads, 0,
         Unrolling<Index>(s), static_cast<Index>(positions), col, bias, channels,
         Finish<T>(epilogue), x);
}

template <class T, class Col>
void col2im(const ConvShape& s, int64_t planes, const Col* col, const T* bias, int64_t channels,
            const ops::Epilogue<T>& epilogue, T* x) {
  fits_int(s, planes) ? run_col2im<int>(s, planes, col, bias, channels, epilogue, x)
                      : run_col2im<int64_t>(s, planes, col, bias, channels, epilogue, x);
}

template <class T>
void im2col_fprop_rows(const ConvArgs<T>& args) {
  im2col(args.shape, args.shape.n * args.shape.c, args.x, args.result);
}

template <class T>
void im2col_dgrad_rows(const ConvArgs<T>& args) {
  const T* const no_bias = nullptr;
  col2im(args.shape, args.shape.n * args.shape.c, args.grad_y, no_bias, args.shape.c,
         ops::Epilogue<T>(), args.result);
}

#define LAMINA_UNROLL(T)                                                                       \
  template void im2col<T>(const ConvShape&, int64_t, const T*, T*);                            \
  template void col2im<T, Acc<T>>(const ConvShape&, int64_t, const Acc<T>*, const T*, int64_t, \
                                  const ops::Epilogue<T>&, T*);
LAMINA_UNROLL(float)
LAMINA_UNROLL(double)
LAMINA_UNROLL(float16)
LAMINA_UNROLL(bfloat16)
#undef LAMINA_UNROLL
LAMINA_CUDA_INSTANTIATE(im2col_fprop_rows, ConvArgs)
LAMINA_CUDA_INSTANTIATE(im2col_dgrad_rows, ConvArgs)

}  // namespace lamina::cuda
