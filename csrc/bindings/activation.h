// Activations and epilogues as Python names them.
#pragma once

#include <string>

#include "bindings/common.h"
#include "ops/epilogue.h"

namespace lamina::bindings {

ops::Activation activation_kind(const std::string& name);

// f(sum + residual) with f = (kind, a, b).
using ActivationName = std::tuple<std::string, double, double>;
template <class T>
ops::Epilogue<T> epilogue(const ActivationName& name, const std::optional<Array>& residual,
                          int64_t elements) {
  const auto& [kind, a, b] = name;
  return {activation_kind(kind), static_cast<ops::Scalar<T>>(a), static_cast<ops::Scalar<T>>(b),
          optional_input<T>(residual, "residual", elements)};
}
inline const ActivationName kNoActivation{"identity", 0, 0};

// y = f(x), or with grad_y the gradient of x.
void activation(ops::Activation kind, double a, double b, const Array& x,
                const std::optional<Array>& grad_y, const Array& result);

// The gradient of f's argument from that of its result y, for f whose derivative y tells.
Array gradient_of_argument(const ActivationName& name, const Array& y, const Array& grad_y);

}  // namespace lamina::bindings
