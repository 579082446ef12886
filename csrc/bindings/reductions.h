// Reductions over axes of NumPy arrays in C order (ops/reduce.h).
#pragma once

#include "bindings/array.h"
#include "ops/reduce.h"

namespace lamina::bindings {

// The axes of an array as runs of reduced and kept ones. A run may be one element.
struct Runs : ops::Axes {
  // Whether the axes form such runs; fills *this if so.
  bool read(const std::vector<py::ssize_t>& shape, const std::vector<bool>& reduced);
  // For an operand that was broadcast to `shape`: the axes along which its gradient is summed.
  bool read_broadcast(const std::vector<py::ssize_t>& shape,
                      const std::vector<py::ssize_t>& operand);
};

// Added in double.
void sum_runs(const Runs& runs, const Array& x, const Array& sums);

}  // namespace lamina::bindings
