// Calls that were checked before. A function of Python checks its arguments once for each set of
// shapes, dtypes and options, and leaves what follows from them as a `Call`; the next call with
// such arguments finds it by one look-up and goes to the kernel at once, or, where a gradient is to
// be recorded, to its Function.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "bindings/array.h"

namespace lamina::bindings {

inline constexpr int kMaxOperands = 6;
using Operands = std::optional<Array>[kMaxOperands];

// One result, of the first operand's dtype.
struct Call {
  std::vector<py::ssize_t> shape;
  std::function<void(const Operands& operands, const Array& result)> run;
};

}  // namespace lamina::bindings
