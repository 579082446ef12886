// resample: a sparse matrix along one axis, or along each of two.
//
//   resample         y[outer][o][inner] = sum over t from begin[o] to begin[o + 1] of
//                                         weight[t] * x[outer][index[t]][inner]
//   resample_planes  y[outer][o][p] = sum over t of `rows` at o and u of `columns` at p of
//                        weight[t] * weight[u] * x[outer][index[t]][index[u]]
//
// Interpolation of every mode, nearest and bed-of-nails unpooling are such tables, one an axis. The
// gradient is the same sum with the transposed tables, so it is gathered too. Bilinear weights:
// Catmull's separable resampling (Catmull & Smith 1980); cubic: Keys 1981.
#pragma once

#include <cstdint>

namespace lamina::ops {

struct ResampleTable {
  int64_t in = 0, out = 0;
  const int64_t* begin = nullptr;  // [out + 1]
  const int64_t* index = nullptr;  // [begin[out]], each in [0, in)
  const double* weight = nullptr;  // [begin[out]]
};

template <class T>
struct ResampleArgs : ResampleTable {
  int64_t outer = 0, inner = 0;
  const T* x = nullptr;  // [outer][in][inner]
  T* result = nullptr;   // [outer][out][inner]
};

template <class T>
struct ResamplePlanesArgs {
  int64_t outer = 0;
  ResampleTable rows, columns;
  const T* x = nullptr;  // [outer][rows.in][columns.in]
  T* result = nullptr;   // [outer][rows.out][columns.out]
};

}  // namespace lamina::ops
