// Many products of small matrices at once, for the Winograd and Fourier convolutions.
#pragma once

#include <cstdint>

namespace lamina::cuda {

//   c[i][j] = sum over d of a[d][i] b[d][j]     (along_depth: of a[i][d] b[j][d])
//
// for every matrix of a batch. A complex product conj(a) b is two real ones of twice the depth: b
// holds planes re, im; a holds planes re, im, -im; c gets planes re, im. Every row starts on
// sixteen bytes and is defined up to a multiple of eight columns.
template <class A>
struct BatchedProduct {
  const A *a, *b;
  A* c;
  int m, n, depth;                       // of each real matrix
  int pitch_a, pitch_b, pitch_c;         // row lengths
  int64_t stride_a, stride_b, stride_c;  // from matrix to matrix
  int batch;
  int64_t plane_a = 0, plane_b = 0, plane_c = 0;  // from plane to plane of complex matrices
  int parts = 1;                                  // 2: complex
  int splits = 1, split_depth = 0;                // split_depth is a multiple of 32
  int64_t split_stride = 0;                       // of c
  bool accumulate = false;                        // c += instead of c =
};

// A is float or double.
template <bool ALONG_DEPTH, class A>
void run_batched_product(const BatchedProduct<A>& product);

}  // namespace lamina::cuda
