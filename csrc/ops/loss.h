// Losses element by element, of an input x and a target t.
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

// X(kind): the loss; slopes at kinks are 0 unless said otherwise.
//   absolute     |x - t|
//   squared      (x - t)^2
//   smooth_l1    with d = |x - t|: b d^2 where d < a, else d - a / 2; b = 1 / (2 a)
//   huber        with d = |x - t|: d^2 / 2 where d < a, else a (d - a / 2)
//   logits       (1 - t) x + softplus(-x): binary cross-entropy of sigmoid(x)
//   soft_labels  t softplus(-x) + (1 - t) softplus(x): the same, infinite where it ought to be
//   probability  -t log(x) - (1 - t) log(1 - x), logarithms of at least -100; the slope by x is
//                (x - t) / max(x (1 - x), 1e-12)
//   soft_margin  softplus(-t x)
//   ranking      max(0, a - t x); the slope at 0 is -t
// NaN in gives NaN out.
// clang-format off
#define LAMINA_POINTWISE_LOSSES(X)                                                     \
  X(absolute) X(squared) X(smooth_l1) X(huber) X(logits) X(soft_labels) X(probability) \
  X(soft_margin) X(ranking)
// clang-format on

enum class PointwiseLoss {
#define LAMINA_ENUMERATE(kind) kind,
  LAMINA_POINTWISE_LOSSES(LAMINA_ENUMERATE)
#undef LAMINA_ENUMERATE
};

inline constexpr const char* kPointwiseLossNames[] = {
#define LAMINA_NAME(kind) #kind,
    LAMINA_POINTWISE_LOSSES(LAMINA_NAME)
#undef LAMINA_NAME
};

// fprop  the losses [size]; reduced: their sum over `divisor`, added in double
// dgrad  the gradient of x or t [size]: grad_y, or if reduced the one grad_y over `divisor`, times
//        the slope
template <class T>
struct LossArgs {
  PointwiseLoss kind = PointwiseLoss::absolute;
  Scalar<T> a = 0, b = 0;
  bool reduced = false, of_target = false;
  double divisor = 1;
  int64_t size = 0;
  const T* x = nullptr;
  const T* t = nullptr;
  const T* grad_y = nullptr;  // dgrad
  T* result = nullptr;        // may be grad_y
};

}  // namespace lamina::ops
