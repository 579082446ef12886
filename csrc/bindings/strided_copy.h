// Arrays of any strides copied to C order, on several threads.
#pragma once

#include "bindings/array.h"

namespace lamina::bindings {

// The elements of an array in C order, in new memory.
py::object in_c_order(PyObject* array);

}  // namespace lamina::bindings
