// optimizer_step: one update of a parameter and its state, in place, element by element.
//
//   g = grad + decay * p;  p = keep * p;  then the rule of the kind changes p and its state
//
// decay is a weight decay inside the gradient, keep = 1 - lr * decay one beside it. The rules,
// their states and their coefficients are in shared/optimizer_rules.h.
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

// X(kind, number of state arrays)
// clang-format off
#define LAMINA_OPTIMIZERS(X)                                                          \
  X(sgd, 0) X(momentum, 1) X(adam, 2) X(amsgrad, 3) X(adamax, 2) X(nadam, 2)          \
  X(radam, 2) X(rmsprop, 1) X(rmsprop_momentum, 2) X(rmsprop_centered, 2)             \
  X(rmsprop_centered_momentum, 3) X(adagrad, 1) X(adadelta, 2) X(rprop, 2) X(asgd, 1)
// clang-format on

enum class Optimizer {
#define LAMINA_ENUMERATE(kind, states) kind,
  LAMINA_OPTIMIZERS(LAMINA_ENUMERATE)
#undef LAMINA_ENUMERATE
};

inline constexpr const char* kOptimizerNames[] = {
#define LAMINA_NAME(kind, states) #kind,
    LAMINA_OPTIMIZERS(LAMINA_NAME)
#undef LAMINA_NAME
};
inline constexpr int kOptimizerStates[] = {
#define LAMINA_STATES(kind, states) states,
    LAMINA_OPTIMIZERS(LAMINA_STATES)
#undef LAMINA_STATES
};

inline constexpr int kMaxOptimizerStates = 3, kMaxOptimizerCoefficients = 7;

template <class T>
struct OptimizerArgs {
  Optimizer kind = Optimizer::sgd;
  int64_t size = 0;
  T* param = nullptr;  // [size], updated
  const T* grad = nullptr;
  T* state[kMaxOptimizerStates] = {};  // [size] each, updated
  Scalar<T> decay = 0, keep = 1;
  Scalar<T> coefficient[kMaxOptimizerCoefficients] = {};
};

}  // namespace lamina::ops
