// conv, im2col: the unrolled input as a matrix in memory, and one matrix product per image and
// group.
//
//   fprop  y[k][o] = weight[k][c r] col[c r][o]
//   wgrad  grad_weight[k][c r] += grad_y[k][o] col[c r][o]^T, images in order
//   dgrad  col[c r][o] = weight[k][c r]^T grad_y[k][o], then grad_x[i] gathers its (r, o) pairs
//
// Source        Chellapilla et al. 2006; Caffe (Jia et al. 2014).
// Workspace     one col matrix: (C / groups) * kernel * out elements, whatever the batch.
// Partitioning  rows of col; blocks of the product (cpu/gemm.h); planes of grad_x.
// Numerics      sums in the order of the matrix product; the same bits for any number of threads.
#include "cpu/gemm.h"
#include "cpu/im2col.h"
#include "cpu/im2col_same.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;
using ops::GemmArgs;

inline constexpr int64_t kTaskElements = 16384, kStreamedTask = 8 * kTaskElements;

// The matrix of consecutive planes. Rows that go past the caches in parts are put together in a
// line first: parts of them do not fill whole lines of memory. Their tasks are larger, and every
// row asks for its part of the next plane if that is small.
template <class T>
static void im2col(const ConvShape& s, const T* x, int64_t planes, T* col) {
  const int64_t out = s.out_size(), taps = s.kernel_size(), rows = planes * taps;
  const bool streamed = is_streamed<T>(rows * out);
  const int64_t elements = streamed ? kStreamedTask : kTaskElements;
  const int64_t grain = ceil_div(elements, max_of<int64_t>(out, 1));
  const bool is_same = SamePlanes<T>::holds(s);
  const SamePlanes<T> same(s, false, is_same);
  const int64_t part = ceil_div(s.in_size(), max_of<int64_t>(taps, 1));
  const bool ahead = streamed && s.in_size() <= kTaskElements;
  parallel_ranges(rows, grain, [&](int64_t begin, int64_t end) {
    auto each = [&](const auto& write) {
      for (int64_t row = begin; row < end; ++row) {
        const T* plane = x + row / taps * s.in_size();
        if (ahead) prefetch_line(plane + s.in_size() + row % taps * part, part);
        write(plane, row % taps, col + row * out);
      }
    };
    if (is_same) {
      each([&](const T* plane, int64_t tap, T* to) { same.write(plane, tap, to, streamed); });
    } else {
      Scratch<T> line(streamed ? out : 0);
      each([&](const T* plane, int64_t tap, T* to) {
        Im2colTap<T>(s, tap).write(plane, streamed ? line.get() : to);
        if (streamed)
          write_line(to, out, true,
                     [&](int64_t i, int64_t count) { return load_first(&line[i], count); });
      });
    }
    finish_streams(streamed);
  });
}

// Calls body(x, weight, y offsets) for each image and group, in order.
template <class Body>
static void for_each_image_group(const ConvShape& s, Body body) {
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t g = 0; g < s.groups; ++g)
      body((n * s.c + g * s.c_per_group()) * s.in_size(),
           g * s.k_per_group() * s.c_per_group() * s.kernel_size(),
           (n * s.k + g * s.k_per_group()) * s.out_size(), g);
}

template <class T>
void conv_fprop_im2col(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  for_each_image_group(s, [&](int64_t x, int64_t weight, int64_t y, int64_t g) {
    im2col(s, args.x + x, s.c_per_group(), args.workspace);
    GemmArgs<T> product;
    product.m = s.k_per_group(), product.n = s.out_size();
    product.k = s.c_per_group() * s.kernel_size();
    product.a = args.weight + weight, product.lda = product.k;
    product.b = args.workspace, product.ldb = product.n;
    product.c = args.result + y, product.ldc = product.n;
    product.bias_m = args.bias ? args.bias + g * s.k_per_group() : nullptr;
    product.epilogue = args.epilogue;
    if (args.epilogue.residual) product.epilogue.residual += y;
    gemm(product);
  });
}

template <class T>
void conv_wgrad_im2col(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  for (int64_t i = 0; s.n == 0 && i < s.weight_elems(); ++i) args.result[i] = 0;
  for_each_image_group(s, [&](int64_t x, int64_t weight, int64_t y, int64_t) {
    im2col(s, args.x + x, s.c_per_group(), args.workspace);
    GemmArgs<T> product;
    product.m = s.k_per_group(), product.n = s.c_per_group() * s.kernel_size();
    product.k = s.out_size();
    product.a = args.grad_y + y, product.lda = product.k;
    product.b = args.workspace, product.ldb = product.k, product.trans_b = true;
    product.c = args.result + weight, product.ldc = product.n;
    product.beta = y < s.k * s.out_size() ? T(0) : T(1);  // the first image overwrites
    gemm(product);
  });
}

// One row of grad_x: every tap r adds its row of col, shifted, at the right stride.
template <class T>
static void gather_row(const ConvShape& s, const T* col, int64_t i0, int64_t i1, T* grad_x) {
  const int64_t i[2] = {i0, i1};
  for (int64_t r0 = 0; r0 < s.kernel[0]; ++r0)
    for (int64_t r1 = 0; r1 < s.kernel[1]; ++r1) {
      const int64_t r[2] = {r0, r1};
      int64_t o[2];
      bool inside = true;
      for (int axis = 0; axis < 2; ++axis) {
        const int64_t shifted = i[axis] + s.pad[axis] - r[axis] * s.dilation[axis];
        o[axis] = shifted / s.stride[axis];
        inside &= shifted >= 0 && shifted % s.stride[axis] == 0 && o[axis] < s.out[axis];
      }
      if (!inside) continue;
      const int64_t tap = (r0 * s.kernel[1] + r1) * s.kernel[2];
      const T* row = col + ((tap * s.out[0] + o[0]) * s.out[1] + o[1]) * s.out[2];
      if (s.stride[2] == 1) {
        along_line<T>(s.in[2], [&](int64_t i2, int64_t count) {
          Vec<T> sum = load_first(grad_x + i2, count);
          for (int64_t r2 = 0; r2 < s.kernel[2]; ++r2) {
            const int64_t o2 = i2 - r2 * s.dilation[2] + s.pad[2];
            sum += load_lanes(row + r2 * s.out_size() + o2, -o2, s.out[2] - o2);
          }
          store_first(grad_x + i2, count, sum);
        });
        continue;
      }
      for (int64_t r2 = 0; r2 < s.kernel[2]; ++r2, row += s.out_size()) {
        const int64_t offset = r2 * s.dilation[2] - s.pad[2];
        const InsideRange range = inside_range(offset, s.stride[2], s.in[2], s.out[2]);
        for (int64_t o2 = range.first; o2 < range.last; ++o2)
          grad_x[o2 * s.stride[2] + offset] += row[o2];
      }
    }
}

// Consecutive planes of grad_x from their matrix; bias [planes] or null.
template <class T>
static void col2im(const ConvShape& s, const T* matrix, const T* bias, int64_t planes, T* grad_x) {
  const int64_t size = s.kernel_size() * s.out_size();
  const int64_t grain = ceil_div(kTaskElements, max_of<int64_t>(size, 1));
  const bool is_same = SamePlanes<T>::holds(s);
  const SamePlanes<T> same(s, true, is_same);
  parallel_ranges(planes, grain, [&](int64_t begin, int64_t end) {
    auto each = [&](const auto& gather) {
      for (int64_t c = begin; c < end; ++c)
        gather(matrix + c * size, bias ? bias[c] : T(0), grad_x + c * s.in_size());
    };
    if (is_same)
      return each([&](const T* rows, T own, T* plane) { same.gather(rows, own, plane); });
    each([&](const T* rows, T own, T* plane) {
      for (int64_t i = 0; i < s.in_size(); ++i) plane[i] = own;
      for (int64_t i0 = 0; i0 < s.in[0]; ++i0)
        for (int64_t i1 = 0; i1 < s.in[1]; ++i1)
          gather_row(s, rows, i0, i1, plane + (i0 * s.in[1] + i1) * s.in[2]);
    });
  });
}

template <class T>
void conv_dgrad_im2col(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  for_each_image_group(s, [&](int64_t x, int64_t weight, int64_t y, int64_t g) {
    GemmArgs<T> product;
    product.m = s.c_per_group() * s.kernel_size(), product.n = s.out_size();
    product.k = s.k_per_group();
    product.a = args.weight + weight, product.lda = product.m, product.trans_a = true;
    product.b = args.grad_y + y, product.ldb = product.n;
    product.c = args.workspace, product.ldc = product.n;
    gemm(product);
    col2im(s, args.workspace, args.bias ? args.bias + g * s.c_per_group() : nullptr,
           s.c_per_group(), args.result + x);
  });
}

// The matrix itself, for callers who want to see it: all channels of each image.
template <class T>
void im2col_fprop_rows(const ConvArgs<T>& args) {
  im2col(args.shape, args.x, args.shape.n * args.shape.c, args.result);
}

template <class T>
void im2col_dgrad_rows(const ConvArgs<T>& args) {
  col2im<T>(args.shape, args.grad_y, nullptr, args.shape.n * args.shape.c, args.result);
}

LAMINA_INSTANTIATE(conv_fprop_im2col, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_im2col, ConvArgs)
LAMINA_INSTANTIATE(conv_wgrad_im2col, ConvArgs)
LAMINA_INSTANTIATE(im2col_fprop_rows, ConvArgs)
LAMINA_INSTANTIATE(im2col_dgrad_rows, ConvArgs)

LAMINA_CPU_NAMESPACE_END
