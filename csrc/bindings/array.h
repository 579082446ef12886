// The arrays of a call: NumPy's, or any object with __cuda_array_interface__ (CuPy, PyTorch, ...).
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ops/registry.h"

namespace lamina::bindings {

namespace py = pybind11;

class FilterStore;  // bindings/filter_store.h

enum class ElementType { f32, f64, f16, bf16, i64, u8, boolean, other };

// A view that owns a reference to the array.
class Array {
 public:
  Array() = default;

  // Whether `object` is an array; fills *this if so.
  bool load(py::handle object);

  PyObject* object() const { return owner_.ptr(); }  // borrowed; null before `load`
  void* data() const { return data_; }
  int64_t size() const { return size_; }
  size_t bytes() const { return static_cast<size_t>(size_) * item_bytes_; }
  ElementType type() const { return type_; }
  bool contiguous() const { return contiguous_; }  // in C order
  bool writeable() const { return writeable_; }
  bool on_gpu() const { return on_gpu_; }
  void* stream() const { return stream_; }  // of the array library at the time of the call
  int device() const { return device_; }
  // Where the array's packed form may be kept during this call; null: nowhere.
  FilterStore* filters() const { return filters_; }
  void set_filters(FilterStore* filters) { filters_ = filters; }

 private:
  void load_numpy(PyObject* array);
  void load_cuda(const py::dict& interface);

  py::object owner_;
  FilterStore* filters_ = nullptr;
  void* data_ = nullptr;
  void* stream_ = nullptr;
  int64_t size_ = 0;
  size_t item_bytes_ = 1;
  ElementType type_ = ElementType::other;
  int device_ = 0;
  bool contiguous_ = true, writeable_ = true, on_gpu_ = false;
};

// body(double{}) or body(float{}), by the dtype.
template <class Body>
void visit_float(const Array& array, Body&& body) {
  array.type() == ElementType::f64 ? body(double{}) : body(float{});
}

}  // namespace lamina::bindings

namespace pybind11::detail {

template <>
struct type_caster<lamina::bindings::Array> {
  PYBIND11_TYPE_CASTER(lamina::bindings::Array, const_name("numpy.ndarray"));
  bool load(handle source, bool) { return value.load(source); }
};

}  // namespace pybind11::detail
