// Shared by the binding files: array checks, element-type dispatch, self-registration.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>

#include "bindings/array.h"
#include "core/check.h"
#include "ops/registry.h"

namespace lamina::bindings {

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
constexpr ElementType element_type() {
  if constexpr (std::is_same_v<T, int64_t>)
    return ElementType::i64;
  else if constexpr (std::is_same_v<T, uint8_t>)
    return ElementType::u8;
  else
    return static_cast<ElementType>(ops::kDTypeOf<T>);
}

template <class T>
T* checked_data(const Array& array, const char* name, int64_t elements) {
  expect(array.type() == element_type<T>(), name, "has another dtype than the kernel");
  expect(array.contiguous(), name, "is not contiguous");
  expect(reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0, name, "is misaligned");
  expect(array.size() == elements, name, "has another size than the kernel expects");
  return static_cast<T*>(array.data());
}

// Where the kernels of the call find the array: itself, or its copy on the GPU if NumPy arrays were
// asked to run there.
template <class T>
T* call_data(const Array& array, const char* name, int64_t elements, bool read, bool written) {
  T* data = checked_data<T>(array, name, elements);
  const ops::CallMemory memory{data, array.bytes(), read, written, name};
  return static_cast<T*>(ops::call_array(memory, array.on_gpu()));
}

template <class T>
const T* input(const Array& array, const char* name, int64_t elements) {
  return call_data<T>(array, name, elements, true, false);
}

// An array that the kernel writes, every element, before it reads any.
template <class T>
T* output(const Array& array, const char* name, int64_t elements) {
  expect(array.writeable(), name, "is read-only");
  return call_data<T>(array, name, elements, false, true);
}

// An array that the kernel reads and updates.
template <class T>
T* in_out(const Array& array, const char* name, int64_t elements) {
  expect(array.writeable(), name, "is read-only");
  return call_data<T>(array, name, elements, true, true);
}

template <class T>
const T* optional_input(const std::optional<Array>& array, const char* name, int64_t elements) {
  return array ? input<T>(*array, name, elements) : nullptr;
}

template <class T>
T* optional_output(const std::optional<Array>& array, const char* name, int64_t elements) {
  return array ? output<T>(*array, name, elements) : nullptr;
}

// A small NumPy array that calls read over and over, such as the windows of a pool: its copy on a
// GPU is made once and kept.
template <class T>
class Table {
 public:
  Table(Array array, const char* name, int64_t elements)
      : array_(std::move(array)), host_(checked_data<T>(array_, name, elements)), name_(name) {
    expect(!array_.on_gpu(), name, "is not a NumPy array");
  }
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;
  ~Table() { ops::forget_table(copies_); }

  const T* host() const { return host_; }
  // For the kernels of the current call.
  const T* data() const {
    const ops::CallMemory memory{host_, array_.bytes(), true, false, name_};
    return static_cast<const T*>(ops::call_table(memory, copies_));
  }

 private:
  Array array_;
  const T* host_;
  const char* name_;
  mutable ops::TableCopies copies_;
};

// Calls body(T{}) with the array's element type; the call runs where the array is.
template <class Body>
void visit_dtype(const Array& array, Body&& body) {
  ops::CallScope call(array.on_gpu(), array.stream(), array.device());
  switch (array.type()) {
    case ElementType::f32:
      body(float{});
      break;
    case ElementType::f64:
      body(double{});
      break;
    case ElementType::f16:
      body(float16{});
      break;
    case ElementType::bf16:
      body(bfloat16{});
      break;
    default:
      throw TypeError("internal: expected an array of floats");
  }
  call.finish();
}

}  // namespace lamina::bindings
