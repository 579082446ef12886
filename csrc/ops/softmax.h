// softmax over the middle axis of [outer][axis][inner], and cross-entropy on top of it.
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

// fprop  y = exp(x - m) / sum exp(x - m), m the maximum; log: y = x - m - log(sum exp(x - m))
// dgrad  grad_x = y (grad_y - sum y grad_y);   log: grad_x = grad_y - exp(y) sum grad_y
// NaN anywhere on a line makes the line NaN; so does a line of -Inf, as in PyTorch.
template <class T>
struct SoftmaxArgs {
  int64_t outer = 0, axis = 0, inner = 0;
  bool log = false;
  const T* x = nullptr;       // fprop
  const T* y = nullptr;       // dgrad
  const T* grad_y = nullptr;  // dgrad
  T* result = nullptr;        // y or grad_x
};

// x [n][c][inner] are logits, target [n][inner] class indices, weight [c] or null (ones).
// With t the target of a position, p = softmax(x), s the label smoothing, W = sum of weight:
// fprop  loss = (1 - s) weight[t] (-log p[t]) + s / c * sum over j of weight[j] (-log p[j])
// dgrad  grad_x[j] = grad_loss * ((1 - s) weight[t] (p[j] - [j = t]) + s / c (W p[j] - weight[j]))
// Both are 0 where t = ignore_index. All targets are checked before anything is written: `bad`, -1
// before, gets the first position whose target is neither a class nor ignore_index.
template <class T>
struct CrossEntropyArgs {
  int64_t n = 0, c = 0, inner = 0;
  int64_t ignore_index = -100;
  Scalar<T> label_smoothing = 0;
  const T* x = nullptr;
  const int64_t* target = nullptr;
  const T* weight = nullptr;
  const T* grad_loss = nullptr;  // dgrad: [n][inner]
  T* result = nullptr;           // loss [n][inner], or grad_x [n][c][inner]
  int64_t* bad = nullptr;
};

template <class T>
constexpr int64_t first_bad_target(const CrossEntropyArgs<T>& args) {
  for (int64_t i = 0; i < args.n * args.inner; ++i) {
    const int64_t t = args.target[i];
    if (t != args.ignore_index && (t < 0 || t >= args.c)) return i;
  }
  return -1;
}

}  // namespace lamina::ops
