// conv, im2col: the unrolled input as a matrix in memory, and matrix products.
//
//   fprop  y[n][k][o] = weight[k][c r] col[n][c r][o]
//   wgrad  grad_weight[k][c r] += grad_y[n][k][o] col[n][c r][o]^T, images in order
//   dgrad  col[n][c r][o] = weight[k][c r]^T grad_y[n][k][o], then grad_x[i] gathers its (r, o)
//
// Source        Chellapilla et al. 2006; Caffe (Jia et al. 2014).
// Workspace     the matrices of a chunk of images (shared/im2col_chunk.h).
// Partitioning  one batched product for all images of the chunk, or for all groups of an image,
//               whichever are more.
// Numerics      sums in the order of the matrix product (cuda/gemm.cu); what is added again, the
//               columns of dgrad and the images of wgrad, stays in float32 for 16-bit types.
// Floor         the matrix is written once and read once.
#include "cuda/device/partial_sums.h"
#include "cuda/gemm.h"
#include "cuda/im2col.h"
#include "cuda/instantiate.h"
#include "shared/im2col_chunk.h"

namespace lamina::cuda {

using ops::ConvArgs;
using ops::ConvShape;
using ops::GemmArgs;

// What advances from image to image and from group to group in the operands of a product.
struct Strides {
  int64_t image, group;
};

// Runs `product`, that of image 0 and group 0, for all of them. A bias belongs to a group.
template <class T>
static void all_products(const ConvShape& s, int64_t images, GemmArgs<T> product, Strides a,
                         Strides b, Strides c, Acc<T>* sums) {
  const bool batch_images = product.bias_m || images >= s.groups;
  const GemmArgs<T> first = product;
  product.batch = batch_images ? images : s.groups;
  product.stride_a = batch_images ? a.image : a.group;
  product.stride_b = batch_images ? b.image : b.group;
  product.stride_c = batch_images ? c.image : c.group;
  for (int64_t i = 0; i < (batch_images ? s.groups : images); ++i) {
    product.a = first.a + i * (batch_images ? a.group : a.image);
    product.b = first.b + i * (batch_images ? b.group : b.image);
    const int64_t at = i * (batch_images ? c.group : c.image);
    if (first.c) product.c = first.c + at, product.epilogue = first.epilogue.at(at);
    if (first.bias_m) product.bias_m = first.bias_m + i * first.m;
    gemm(product, sums ? sums + at : nullptr);
  }
}

// Calls body(first image, images) for each chunk, in order.
template <class Body>
static void for_each_chunk(const ConvShape& s, Body body) {
  const int64_t images = Im2colChunk(s).images;
  for (int64_t n = 0; n < s.n; n += images) body(n, min(images, s.n - n));
}

template <class T>
void conv_fprop_im2col(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const int64_t taps = s.kernel_size(), out = s.out_size();
  for_each_chunk(s, [&](int64_t n, int64_t images) {
    im2col(s, images * s.c, args.x + n * s.c * s.in_size(), args.workspace);
    GemmArgs<T> product;
    product.precision = args.precision;
    product.m = s.k_per_group(), product.n = out, product.k = s.c_per_group() * taps;
    product.a = args.weight, product.lda = product.k;
    product.b = args.workspace, product.ldb = out;
    product.c = args.result + n * s.k * out, product.ldc = out;
    product.bias_m = args.bias, product.epilogue = args.epilogue.at(n * s.k * out);
    Acc<T>* const no_sums = nullptr;
    all_products(s, images, product, {0, product.m * product.k},
                 {s.c * taps * out, product.k * out}, {s.k * out, product.m * out}, no_sums);
  });
}

template <class T>
void conv_wgrad_im2col(const ConvArgs<T>& args) {
  constexpr bool kRounds = sizeof(T) < sizeof(Acc<T>);
  const ConvShape& s = args.shape;
  const int64_t taps = s.kernel_size(), out = s.out_size();
  Acc<T>* const sums = reinterpret_cast<Acc<T>*>(args.workspace);
  T* const col = reinterpret_cast<T*>(sums + Im2colChunk(s).sum_elems);
  if (s.n == 0) simt::fill_zero(args.result, s.weight_elems() * sizeof(T), current_stream());
  for_each_chunk(s, [&](int64_t first, int64_t images) {
    im2col(s, images * s.c, args.x + first * s.c * s.in_size(), col);
    for (int64_t n = 0; n < images; ++n) {
      GemmArgs<T> product;
      product.precision = args.precision;
      product.batch = s.groups;
      product.m = s.k_per_group(), product.n = s.c_per_group() * taps, product.k = out;
      product.a = args.grad_y + (first + n) * s.k * out, product.lda = out;
      product.stride_a = product.m * out;
      product.b = col + n * s.c * taps * out, product.ldb = out, product.trans_b = true;
      product.stride_b = product.n * out;
      product.c = args.result, product.ldc = product.n, product.stride_c = product.m * product.n;
      product.beta = first + n == 0 ? 0 : 1;
      gemm(product, kRounds ? sums : nullptr);
    }
  });
  if (kRounds && s.n > 0) add_partial_sums<T>(sums, args.result, s.weight_elems(), 1);
}

template <class T>
void conv_dgrad_im2col(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const int64_t taps = s.kernel_size(), out = s.out_size();
  Acc<T>* const col = reinterpret_cast<Acc<T>*>(args.workspace);
  for_each_chunk(s, [&](int64_t n, int64_t images) {
    GemmArgs<T> product;
    product.precision = args.precision;
    product.m = s.c_per_group() * taps, product.n = out, product.k = s.k_per_group();
    product.a = args.weight, product.lda = product.m, product.trans_a = true;
    product.b = args.grad_y + n * s.k * out, product.ldb = out;
    product.ldc = out;
    all_products(s, images, product, {0, product.k * product.m}, {s.k * out, product.k * out},
                 {s.c * taps * out, product.m * out}, col);
    const int64_t first = n * s.c * s.in_size();
    col2im(s, images * s.c, col, args.bias, s.c, args.epilogue.at(first), args.result + first);
  });
}

LAMINA_CUDA_INSTANTIATE(conv_fprop_im2col, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_dgrad_im2col, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_wgrad_im2col, ConvArgs)

}  // namespace lamina::cuda
