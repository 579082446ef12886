// Both gradients of prelu (ops/activation.h) in one pass over x and grad_y: dgrad's into `result`,
// wgrad's into `grad_weight`. GPUs take one after the other.
#pragma once

#include "ops/activation.h"

namespace lamina::ops {

template <class T>
struct PreluGradientArgs : PreluArgs<T> {
  T* grad_weight = nullptr;
};

}  // namespace lamina::ops
