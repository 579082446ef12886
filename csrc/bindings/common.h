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

template <class T>
const T* input(const py::array& array, const char* name, int64_t elements) {
  expect(py::isinstance<py::array_t<T>>(array), name, "has another dtype than the kernel");
  expect((array.flags() & py::array::c_style) != 0, name, "is not contiguous");
  expect(reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0, name, "is misaligned");
  expect(array.size() == elements, name, "has another size than the kernel expects");
  return static_cast<const T*>(array.data());
}

template <class T>
T* output(py::array& array, const char* name, int64_t elements) {
  expect(array.writeable(), name, "is read-only");
  return const_cast<T*>(input<T>(array, name, elements));
}

template <class T>
const T* optional_input(const std::optional<py::array>& array, const char* name, int64_t elements) {
  return array ? input<T>(*array, name, elements) : nullptr;
}

template <class T>
T* optional_output(std::optional<py::array>& array, const char* name, int64_t elements) {
  return array ? output<T>(*array, name, elements) : nullptr;
}

// Calls body(T{}) with the array's element type, float or double.
template <class Body>
void visit_dtype(const py::array& array, Body&& body) {
  if (py::isinstance<py::array_t<float>>(array))
    body(float{});
  else if (py::isinstance<py::array_t<double>>(array))
    body(double{});
  else
    throw TypeError("internal: expected a float32 or float64 array");
}

}  // namespace lamina::bindings
