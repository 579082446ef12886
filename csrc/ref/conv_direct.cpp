// conv, reference: the sums of ops/conv.h as loops, in double precision.
#include "ops/conv.h"
#include "ops/instantiate.h"
#include "ref/activation.h"

namespace lamina::ref {
namespace {

using ops::ConvArgs;
using ops::ConvShape;

// Calls body(x_index, weight_index, y_index) for every product of the convolution: all three
// gradients and the forward pass visit the same set of triples.
template <class Body>
void for_each_product(const ConvShape& s, Body body) {
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t k = 0; k < s.k; ++k)
      for (int64_t o0 = 0; o0 < s.out[0]; ++o0)
        for (int64_t o1 = 0; o1 < s.out[1]; ++o1)
          for (int64_t o2 = 0; o2 < s.out[2]; ++o2) {
            const int64_t y = (((n * s.k + k) * s.out[0] + o0) * s.out[1] + o1) * s.out[2] + o2;
            for (int64_t cg = 0; cg < s.c_per_group(); ++cg)
              for (int64_t r0 = 0; r0 < s.kernel[0]; ++r0)
                for (int64_t r1 = 0; r1 < s.kernel[1]; ++r1)
                  for (int64_t r2 = 0; r2 < s.kernel[2]; ++r2) {
                    const int64_t i0 = o0 * s.stride[0] - s.pad[0] + r0 * s.dilation[0];
                    const int64_t i1 = o1 * s.stride[1] - s.pad[1] + r1 * s.dilation[1];
                    const int64_t i2 = o2 * s.stride[2] - s.pad[2] + r2 * s.dilation[2];
                    if (i0 < 0 || i0 >= s.in[0] || i1 < 0 || i1 >= s.in[1] || i2 < 0 ||
                        i2 >= s.in[2])
                      continue;
                    const int64_t c = k / s.k_per_group() * s.c_per_group() + cg;
                    const int64_t x =
                        (((n * s.c + c) * s.in[0] + i0) * s.in[1] + i1) * s.in[2] + i2;
                    const int64_t w =
                        (((k * s.c_per_group() + cg) * s.kernel[0] + r0) * s.kernel[1] + r1) *
                            s.kernel[2] +
                        r2;
                    body(x, w, y);
                  }
          }
}

// Sums in double whatever T is, rounds once at the end.
class Accumulator {
 public:
  explicit Accumulator(int64_t count) : sums_(new double[count]()), count_(count) {}
  ~Accumulator() { delete[] sums_; }
  Accumulator(const Accumulator&) = delete;
  Accumulator& operator=(const Accumulator&) = delete;
  double& operator[](int64_t i) { return sums_[i]; }
  template <class T>
  void store(T* result, const ops::Epilogue<T>& epilogue = {}) const {
    for (int64_t i = 0; i < count_; ++i) result[i] = finished(epilogue, sums_[i], i);
  }

 private:
  double* sums_;
  int64_t count_;
};

}  // namespace

template <class T>
void conv_fprop_direct(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  Accumulator y(s.y_elems());
  if (args.bias)
    for (int64_t i = 0; i < s.y_elems(); ++i) y[i] = args.bias[i / s.out_size() % s.k];
  for_each_product(s, [&](int64_t xi, int64_t wi, int64_t yi) {
    y[yi] += static_cast<double>(args.x[xi]) * args.weight[wi];
  });
  y.store(args.result, args.epilogue);
}

template <class T>
void conv_dgrad_direct(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  Accumulator grad_x(s.x_elems());
  if (args.bias)
    for (int64_t i = 0; i < s.x_elems(); ++i) grad_x[i] = args.bias[i / s.in_size() % s.c];
  for_each_product(s, [&](int64_t xi, int64_t wi, int64_t yi) {
    grad_x[xi] += static_cast<double>(args.grad_y[yi]) * args.weight[wi];
  });
  grad_x.store(args.result, args.epilogue);
}

template <class T>
void conv_wgrad_direct(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  Accumulator grad_weight(s.weight_elems());
  for_each_product(s, [&](int64_t xi, int64_t wi, int64_t yi) {
    grad_weight[wi] += static_cast<double>(args.grad_y[yi]) * args.x[xi];
  });
  grad_weight.store(args.result);
}

template <class T>
void conv_bgrad_direct(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  Accumulator grad_bias(s.k);
  for (int64_t i = 0; i < s.y_elems(); ++i) grad_bias[i / s.out_size() % s.k] += args.grad_y[i];
  grad_bias.store(args.result);
}

// A depthwise convolution with one-hot filters: row (c, r) of the matrix is output channel
// c * taps + r.
template <class Body>
static void for_each_entry(const ConvShape& s, Body body) {
  ConvShape unrolled = s;
  unrolled.k = s.c * s.kernel_size(), unrolled.groups = s.c;
  for_each_product(unrolled, [&](int64_t xi, int64_t wi, int64_t yi) {
    const int64_t row = yi / s.out_size() % unrolled.k;
    if (wi % s.kernel_size() == row % s.kernel_size()) body(xi, yi);
  });
}

template <class T>
void im2col_fprop_rows(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  for (int64_t i = 0; i < s.n * s.c * s.kernel_size() * s.out_size(); ++i) args.result[i] = 0;
  for_each_entry(s, [&](int64_t xi, int64_t yi) { args.result[yi] = args.x[xi]; });
}

template <class T>
void im2col_dgrad_rows(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  Accumulator grad_x(s.x_elems());
  for_each_entry(s, [&](int64_t xi, int64_t yi) { grad_x[xi] += args.grad_y[yi]; });
  grad_x.store(args.result);
}

LAMINA_INSTANTIATE(im2col_fprop_rows, ConvArgs)
LAMINA_INSTANTIATE(im2col_dgrad_rows, ConvArgs)
LAMINA_INSTANTIATE(conv_fprop_direct, ConvArgs)
LAMINA_INSTANTIATE(conv_dgrad_direct, ConvArgs)
LAMINA_INSTANTIATE(conv_wgrad_direct, ConvArgs)
LAMINA_INSTANTIATE(conv_bgrad_direct, ConvArgs)

}  // namespace lamina::ref
