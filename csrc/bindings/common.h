// Shared by the binding files: array checks, element-type dispatch, self-registration.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "core/check.h"
#include "ops/registry.h"

namespace lamina::bindings {

namespace py = pybind11;

// Each binding file states `LAMINA_BINDINGS(conv) { module.def(...); }`; module.cpp runs them all.
using Binder = void (*)(py::module_&);
struct BinderNode {
  explicit BinderNode(Binder binder);
  Binder binder;
  BinderNode* next;
};
#define LAMINA_BINDINGS(family)                                              \
  static void bind_##family(::pybind11::module_& module);                    \
  static const ::lamina::bindings::BinderNode node_##family(&bind_##family); \
  static void bind_##family(::pybind11::module_& module)

// The Python layer hands over contiguous, aligned arrays of agreed sizes; a violation is our bug,
// and is caught here because a kernel would read or write out of bounds.
inline void expect(bool condition, const char* name, const char* what) {
  if (!condition) throw std::logic_error(std::string("internal: array '") + name + "' " + what);
}

// The float type of an array; none for the others.
inline std::optional<ops::DType> float_type(const py::array& array) {
  if (py::isinstance<py::array_t<float>>(array)) return ops::DType::f32;
  if (py::isinstance<py::array_t<double>>(array)) return ops::DType::f64;
  const py::dtype dtype = array.dtype();
  if (dtype.kind() == 'f' && dtype.itemsize() == 2) return ops::DType::f16;
  if (dtype.itemsize() == 2 && py::str(dtype.attr("name")).cast<std::string>() == "bfloat16")
    return ops::DType::bf16;  // ml_dtypes' extension of NumPy
  return std::nullopt;
}

template <class T>
bool holds(const py::array& array) {
  if constexpr (std::is_integral_v<T>)
    return py::isinstance<py::array_t<T>>(array);
  else
    return float_type(array) == ops::kDTypeOf<T>;
}

// Notes an array of the coming call for backends that watch memory.
inline void note_memory(const py::array& array, const char* name, bool read, bool written) {
  const ops::Backend* backend = ops::find_backend(ops::current_backend().c_str());
  if (backend && backend->begin_call)
    ops::call_memory().push_back(
        {array.data(), static_cast<size_t>(array.nbytes()), read, written, name});
}

template <class T>
const T* checked_data(const py::array& array, const char* name, int64_t elements) {
  expect(holds<T>(array), name, "has another dtype than the kernel");
  expect((array.flags() & py::array::c_style) != 0, name, "is not contiguous");
  expect(reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0, name, "is misaligned");
  expect(array.size() == elements, name, "has another size than the kernel expects");
  return static_cast<const T*>(array.data());
}

template <class T>
const T* input(const py::array& array, const char* name, int64_t elements) {
  note_memory(array, name, true, false);
  return checked_data<T>(array, name, elements);
}

// An array that the kernel writes, every element, before it reads any.
template <class T>
T* output(py::array& array, const char* name, int64_t elements) {
  expect(array.writeable(), name, "is read-only");
  note_memory(array, name, false, true);
  return const_cast<T*>(checked_data<T>(array, name, elements));
}

// An array that the kernel reads and updates.
template <class T>
T* in_out(py::array& array, const char* name, int64_t elements) {
  expect(array.writeable(), name, "is read-only");
  note_memory(array, name, true, true);
  return const_cast<T*>(checked_data<T>(array, name, elements));
}

template <class T>
const T* optional_input(const std::optional<py::array>& array, const char* name, int64_t elements) {
  return array ? input<T>(*array, name, elements) : nullptr;
}

template <class T>
T* optional_output(std::optional<py::array>& array, const char* name, int64_t elements) {
  return array ? output<T>(*array, name, elements) : nullptr;
}

// Calls body(T{}) with the array's element type.
template <class Body>
void visit_dtype(const py::array& array, Body&& body) {
  ops::call_memory().clear();
  const std::optional<ops::DType> dtype = float_type(array);
  if (dtype == ops::DType::f32)
    body(float{});
  else if (dtype == ops::DType::f64)
    body(double{});
  else if (dtype == ops::DType::f16)
    body(float16{});
  else if (dtype == ops::DType::bf16)
    body(bfloat16{});
  else
    throw TypeError("internal: expected an array of floats");
}

}  // namespace lamina::bindings
