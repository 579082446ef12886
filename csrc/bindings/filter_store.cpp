#include "bindings/filter_store.h"

#include <atomic>
#include <cstdlib>

#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "core/buffers.h"

namespace lamina::bindings {
namespace {

int64_t limit_from_environment() {
  const char* const text = std::getenv("LAMINA_PACKED_BYTES");
  if (text && *text) return std::max<int64_t>(std::atoll(text), 0);
  return idle_limit_by_default();
}

std::atomic<int64_t> packed_bytes{0};
std::atomic<int64_t> packed_limit{limit_from_environment()};

// What the capsules hold.
struct Packed {
  ops::PackedLayout layout;
  int64_t bytes;
  void* data;
  bool ready = false;

  Packed(const ops::PackedLayout& layout, int64_t bytes)
      : layout(layout), bytes(bytes), data(take_buffer(static_cast<size_t>(bytes))) {
    packed_bytes += bytes;
  }
  Packed(const Packed&) = delete;
  Packed& operator=(const Packed&) = delete;
  ~Packed() {
    packed_bytes -= bytes;
    give_buffer(data, static_cast<size_t>(bytes));
  }
};

Packed* packed_in(PyObject* capsule) {
  return static_cast<Packed*>(PyCapsule_GetPointer(capsule, nullptr));
}

// A new capsule, or null.
py::object new_packed(const ops::PackedLayout& layout, int64_t bytes) {
  if (packed_bytes + bytes > packed_limit) return {};
  try {
    auto packed = std::make_unique<Packed>(layout, bytes);
    PyObject* const capsule =
        PyCapsule_New(packed.get(), nullptr, [](PyObject* self) { delete packed_in(self); });
    if (capsule == nullptr) return PyErr_Clear(), py::object();
    packed.release();
    return py::reinterpret_steal<py::object>(capsule);
  } catch (const std::bad_alloc&) {
    return {};
  }
}

}  // namespace

FilterStore::~FilterStore() {  // of a call that failed
  if (filling_ && graph.tensor.get(tensor_, TensorSlot::packed) == held_.ptr())
    forget_packed(tensor_);
}

void* FilterStore::find_bytes(const ops::PackedLayout& layout, int64_t bytes, bool& ready) {
  if (bytes == 0) return nullptr;
  PyObject* const kept = graph.tensor.get(tensor_, TensorSlot::packed);
  if (kept != nullptr && kept != Py_None) {
    Packed* const packed = packed_in(kept);
    if (packed->layout == layout && packed->bytes == bytes && packed_bytes <= packed_limit) {
      if (!packed->ready) return nullptr;  // another thread is about to fill it
      held_ = py::reinterpret_borrow<py::object>(kept);
      ready = true;
      return packed->data;
    }
    forget_packed(tensor_);
  }
  constexpr Py_ssize_t kReferences = 2;  // the Tensor's, and that of this call
  const auto alone = [&] { return is_only_reference(array_shown_by(tensor_), kReferences); };
  if (!alone()) return nullptr;
  held_ = new_packed(layout, bytes);
  if (!held_ || !alone()) return nullptr;  // a new object may let Python collect garbage
  graph.tensor.set(tensor_, TensorSlot::packed, held_);
  filling_ = true;
  return packed_in(held_.ptr())->data;
}

void FilterStore::finish() {
  packed_in(held_.ptr())->ready = true;
  filling_ = false;
}

LAMINA_BINDINGS(filter_store) {
  module.def("packed_bytes", [] { return packed_bytes.load(); });
  module.def("packed_limit", [] { return packed_limit.load(); });
  module.def("set_packed_limit", [](int64_t bytes) { packed_limit = bytes; }, py::arg("bytes"));
}

}  // namespace lamina::bindings
