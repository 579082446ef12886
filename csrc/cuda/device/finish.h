// The epilogue of ops/epilogue.h on its way into a store: a sum becomes a result.
#pragma once

#include "cuda/device/activate.h"
#include "cuda/device/vector.h"
#include "ops/epilogue.h"

namespace lamina::cuda {

// Made on the host, a parameter of the kernel: every branch is the same for all threads. What is
// piecewise linear is a slope below zero and two bounds, without a branch for the kind.
template <class T>
struct Finish {
  using A = Acc<T>;

  const T* residual = nullptr;  // beside the result
  A slope = 1, low = -infinity<A>(), high = infinity<A>();
  ops::Activation kind = ops::Activation::identity;  // or one of ops::takes_a_gate

  Finish() = default;
  explicit Finish(const ops::Epilogue<T>& epilogue) : residual(epilogue.residual) {
    using ops::Activation;
    if (epilogue.kind == Activation::relu) low = 0;
    if (epilogue.kind == Activation::leaky_relu) slope = epilogue.a;
    if (epilogue.kind == Activation::hardtanh) low = epilogue.a, high = epilogue.b;
    if (ops::takes_a_gate(epilogue.kind)) kind = epilogue.kind, slope = epilogue.a;
    bends_ = epilogue.kind != Activation::identity;
  }

  // The result at `index` of the array that the kernel writes.
  __device__ __forceinline__ T operator()(A sum, int64_t index) const {
    if (residual) sum += widen(residual[index]);
    return narrow<T>(activated(sum));
  }
  template <int N>
  __device__ __forceinline__ Vector<T, N> operator()(const Vector<A, N>& sums,
                                                     int64_t index) const {
    Vector<T, N> results, more{};
    if (residual) more = load<T, N>(residual + index);
#pragma unroll
    for (int i = 0; i < N; ++i)
      results.element[i] = narrow<T>(
          activated(residual ? sums.element[i] + widen(more.element[i]) : sums.element[i]));
    return results;
  }

 private:
  __device__ __forceinline__ A activated(A x) const {
    if (!bends_) return x;
    const A zero = 0, b = 0;
    switch (kind) {
      case ops::Activation::silu:
        return Kind_silu::f(x, zero, b);
      case ops::Activation::sigmoid:
        return Kind_sigmoid::f(x, slope, b);
      case ops::Activation::tanh:
        return Kind_tanh::f(x, zero, b);
      case ops::Activation::hardsigmoid:
        return Kind_hardsigmoid::f(x, zero, b);
      case ops::Activation::hardswish:
        return Kind_hardswish::f(x, zero, b);
      default:
        x = x > A(0) ? x : slope * x;
        return x <= low ? low : x >= high ? high : x;
    }
  }

  bool bends_ = false;
};

}  // namespace lamina::cuda
