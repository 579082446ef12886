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

}  // namespace lamina::bindings
