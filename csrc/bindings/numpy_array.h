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

inline bool is_writeable(PyObject* array) {
  return (fields(array).flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0;
}
inline bool is_aligned_in_c_order(PyObject* array) {
  constexpr int kReady =
      py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  return (fields(array).flags & kReady) == kReady;
}
// float32 or float64, native byte order, aligned, in C order: as kernels read it.
inline bool is_ready(PyObject* array) {
  const ElementType type = element_type_of(array);
  return is_aligned_in_c_order(array) && (type == ElementType::f32 || type == ElementType::f64);
}
inline bool is_aligned(PyObject* array) {
  return (fields(array).flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
}
// What a call may know: floats, and int64 and booleans beside them (class indices, masks).
inline bool is_operand_type(ElementType type) {
  return type == ElementType::f32 || type == ElementType::f64 || type == ElementType::i64 ||
         type == ElementType::boolean;
}

// Whether the holders of so many references to the array are all that reaches its memory.
bool is_only_reference(PyObject* array, Py_ssize_t references);

// A new array in C order; large ones live in recycled memory (core/buffers.h). Null, with no Python
// error set, for a shape that NumPy or the memory cannot hold: the caller has the words for it.
PyObject* new_array(const py::ssize_t* shape, int rank, ElementType type);

// Throws std::bad_alloc instead.
inline py::object new_array_or_throw(const std::vector<py::ssize_t>& shape, ElementType type) {
  PyObject* const array = new_array(shape.data(), static_cast<int>(shape.size()), type);
  if (array == nullptr) throw std::bad_alloc();
  return py::reinterpret_steal<py::object>(array);
}

inline std::vector<py::ssize_t> shape_of(PyObject* array) {
  const auto& proxy = fields(array);
  return {proxy.dimensions, proxy.dimensions + proxy.nd};
}

// A new array of the shape and dtype of another, in C order.
inline py::object new_like(PyObject* array) {
  return new_array_or_throw(shape_of(array), element_type_of(array));
}

// A new view of the array: another shape, strides and first element, all within its memory.
py::object view_of(PyObject* array, int rank, const py::ssize_t* shape, const py::ssize_t* strides,
                   char* data);

// Copies the elements of one array to the places of another of its shape and dtype, in any strides.
void copy_elements(PyObject* source, PyObject* target);

inline Array new_vector(py::ssize_t size, ElementType type) {
  Array vector;
  vector.load(new_array_or_throw({size}, type));
  return vector;
}

}  // namespace lamina::bindings
