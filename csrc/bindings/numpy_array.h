// NumPy arrays by their fields: what pybind11 does through Python calls, in a few loads.
#pragma once

#include "bindings/array.h"

namespace lamina::bindings {

inline const py::detail::PyArray_Proxy& fields(PyObject* array) {
  return *py::detail::array_proxy(array);
}

// An ndarray itself: subclasses may mean something else by their elements.
inline bool is_plain_array(PyObject* object) {
  return Py_TYPE(object) == py::detail::npy_api::get().PyArray_Type_;
}

ElementType element_type_of(PyObject* array);
int type_number(ElementType type);  // NumPy's; -1 for bf16 and other

// float32 or float64, native byte order, aligned, in C order: as kernels read it.
inline bool is_ready(PyObject* array) {
  constexpr int kReady =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((fields(array).flags & kReady) != kReady) return false;
  const ElementType type = element_type_of(array);
  return type == ElementType::f32 || type == ElementType::f64;
}

// A new array in C order; large ones live in recycled memory (core/buffers.h). Null, with no Python
// error set, for a shape that NumPy or the memory cannot hold: the caller has the words for it.
PyObject* new_array(const py::ssize_t* shape, int rank, ElementType type);

}  // namespace lamina::bindings
