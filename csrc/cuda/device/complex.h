// Complex numbers and Fourier transforms of 4 and 8 of them in registers.
#pragma once

#include "cuda/device/numeric.h"

namespace lamina::cuda {

template <class A>
struct alignas(2 * sizeof(A)) Complex {
  A re, im;
};

template <class A>
__device__ __forceinline__ Complex<A> operator+(Complex<A> a, Complex<A> b) {
  return {a.re + b.re, a.im + b.im};
}
template <class A>
__device__ __forceinline__ Complex<A> operator-(Complex<A> a, Complex<A> b) {
  return {a.re - b.re, a.im - b.im};
}
template <class A>
__device__ __forceinline__ Complex<A> operator*(Complex<A> a, Complex<A> b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
template <class A>
__device__ __forceinline__ Complex<A> conj(Complex<A> a) {
  return {a.re, -a.im};
}

// a times exp(-pi i / 2), or for the inverse transform exp(pi i / 2).
template <bool INVERSE, class A>
__device__ __forceinline__ Complex<A> quarter_turn(Complex<A> a) {
  return INVERSE ? Complex<A>{-a.im, a.re} : Complex<A>{a.im, -a.re};
}

// x[k] = sum over n of x[n] exp(-2 pi i n k / N), +2 pi i for the inverse.
template <bool INVERSE, class A>
__device__ __forceinline__ void fourier(Complex<A> (&x)[4]) {
  const Complex<A> a = x[0] + x[2], b = x[0] - x[2];
  const Complex<A> c = x[1] + x[3], d = quarter_turn<INVERSE>(x[1] - x[3]);
  x[0] = a + c, x[1] = b + d, x[2] = a - c, x[3] = b - d;
}
template <bool INVERSE, class A>
__device__ __forceinline__ void fourier(Complex<A> (&x)[8]) {
  Complex<A> even[4] = {x[0], x[2], x[4], x[6]}, odd[4] = {x[1], x[3], x[5], x[7]};
  fourier<INVERSE>(even), fourier<INVERSE>(odd);
  const A r(0.70710678118654752440), s = INVERSE ? r : -r;
  odd[1] = odd[1] * Complex<A>{r, s};  // an eighth of a turn
  odd[2] = quarter_turn<INVERSE>(odd[2]);
  odd[3] = odd[3] * Complex<A>{-r, s};
#pragma unroll
  for (int k = 0; k < 4; ++k) x[k] = even[k] + odd[k], x[k + 4] = even[k] - odd[k];
}

}  // namespace lamina::cuda
