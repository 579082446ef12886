// resample: a sparse matrix along one axis.
//
//   y[outer][o][inner] = sum over t from begin[o] to begin[o + 1] of
//                        weight[t] * x[outer][index[t]][inner]
//
// Interpolation of every mode, nearest and bed-of-nails unpooling are such tables, one an axis. The
// gradient is the same sum with the transposed table, so it is gathered too. Bilinear weights:
// Catmull's separable resampling (Catmull & Smith 1980); cubic: Keys 1981.
#pragma once

#include <cstdint>

namespace lamina::ops {

template <class T>
struct ResampleArgs {
  int64_t outer = 0, in = 0, out = 0, inner = 0;
  const int64_t* begin = nullptr;  // [out + 1]
  const int64_t* index = nullptr;  // [begin[out]], each in [0, in)
  const double* weight = nullptr;  // [begin[out]]
  const T* x = nullptr;            // [outer][in][inner]
  T* result = nullptr;             // [outer][out][inner]
};

}  // namespace lamina::ops
