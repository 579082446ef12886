// Arithmetic element by element, and sums, where a call of NumPy would cost more than the
// arithmetic. The operands are ready (numpy_array.h) and of one dtype.
#pragma once

#include "bindings/array.h"

namespace lamina::bindings {

// y = a + b of one shape; y may be one of them.
void add_arrays(PyObject* a, PyObject* b, PyObject* y);

}  // namespace lamina::bindings
