// Arrays of any strides copied, on several threads.
#pragma once

#include "bindings/array.h"

namespace lamina::bindings {

// The elements of an array in C order, in new memory.
py::object in_c_order(PyObject* array);
// Copies to another array of the shape and dtype, whose elements lie apart.
void copy_strided(PyObject* source, PyObject* target);
void fill_zeros(const Array& array);  // in C order

}  // namespace lamina::bindings
