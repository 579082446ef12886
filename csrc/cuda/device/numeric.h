// Storage types and arithmetic: kernels load T, compute in Acc<T>, and round once when they store.
#pragma once

#include "shared/float16.h"
#include "simt/simt.h"

namespace lamina::cuda {

// double for double, else float.
template <class T>
using Acc = std::conditional_t<sizeof(T) == sizeof(double), double, float>;

template <class T>
__device__ __forceinline__ Acc<T> widen(T x) {
  return x;
}
__device__ __forceinline__ float widen(float16 x) {
#ifdef __CUDACC__
  return simt::float_of_half(x.bits);
#else
  return static_cast<PlainFloat>(x);
#endif
}
__device__ __forceinline__ float widen(bfloat16 x) {
  return static_cast<PlainFloat>(x);
}

// To nearest, ties to even.
template <class T>
__device__ __forceinline__ T narrow(Acc<T> x) {
  if constexpr (sizeof(T) == 2)
    return T(static_cast<PlainFloat>(x));
  else
    return x;
}
#ifdef __CUDACC__
template <>
__device__ __forceinline__ float16 narrow<float16>(float x) {
  float16 rounded;
  rounded.bits = simt::half_of_float(x);
  return rounded;
}
template <>
__device__ __forceinline__ bfloat16 narrow<bfloat16>(float x) {
  bfloat16 rounded;
  rounded.bits = simt::bfloat_of_float(x);
  return rounded;
}
#endif

template <class A>
__host__ __device__ constexpr A infinity() {
  return static_cast<A>(__builtin_huge_val());
}

// The larger, the smaller; NaN if either is.
template <class A>
__device__ __forceinline__ A max_or_nan(A a, A b) {
  return a > b || a != a ? a : b;
}
template <class A>
__device__ __forceinline__ A min_or_nan(A a, A b) {
  return a < b || a != a ? a : b;
}

}  // namespace lamina::cuda
