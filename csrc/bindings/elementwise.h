// Arithmetic of equal arrays, element by element, where a call of NumPy would cost more than the
// arithmetic. The operands are ready (numpy_array.h), of one shape and dtype.
#pragma once

#include "bindings/array.h"

namespace lamina::bindings {

// y = a + b; y may be one of them.
void add_arrays(PyObject* a, PyObject* b, PyObject* y);

}  // namespace lamina::bindings
