// Sums and extrema over axes of arrays in C order.
#pragma once

#include "bindings/array.h"

namespace lamina::bindings {

// Axes in runs: x [outer, n, inner, m] is reduced to y [outer, inner]. A run may be one element.
struct Runs {
  int64_t outer = 1, n = 1, inner = 1, m = 1;

  // Whether the axes form such runs; fills *this if so.
  bool read(const std::vector<py::ssize_t>& shape, const std::vector<bool>& reduced);
  // For an operand that was broadcast to `shape`: the axes along which its gradient is summed.
  bool read_broadcast(const std::vector<py::ssize_t>& shape,
                      const std::vector<py::ssize_t>& operand);
};

// Added in double.
void sum_runs(const Runs& runs, const Array& x, const Array& sums);

}  // namespace lamina::bindings
