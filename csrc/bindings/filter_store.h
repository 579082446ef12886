// Filters of a Tensor as a kernel packed them, kept from call to call.
//
// They lie in the Tensor's slot `_packed`. Nobody can have written the array since:
//   - They are kept only if, when they were packed, nothing but the Tensor referred to the array:
//     no other Tensor, view, buffer, or variable of Python.
//   - Whatever hands the array out, to read or to write it, empties the slot (forget_packed;
//     tensor.py: Tensor.data). A reference that is left keeps them from being kept again.
// What does not count as a reference, a bare address, is in docs/extensions.md.
#pragma once

#include "bindings/graph.h"
#include "ops/conv_plan.h"

namespace lamina::bindings {

// The packed filters of one operand during one call. All of it, and its life, with the GIL held.
class FilterStore {
 public:
  explicit FilterStore(PyObject* tensor) : tensor_(tensor) {}
  FilterStore(const FilterStore&) = delete;
  FilterStore& operator=(const FilterStore&) = delete;
  ~FilterStore();

  // What a kernel finds, or memory that it may fill: its data is null where neither can be. The
  // call holds one reference to the array. What the kernel has filled when `packed` comes back is
  // kept.
  template <class T>
  ops::PackedFilters<T> find(const ops::PackedLayout& layout) {
    bool ready = false;
    void* const data = find_bytes(layout, layout.elements * static_cast<int64_t>(sizeof(T)), ready);
    return {static_cast<T*>(data), ready};
  }
  template <class T>
  void keep(const ops::PackedFilters<T>& packed) {
    if (filling_ && packed.ready) finish();
  }

 private:
  void* find_bytes(const ops::PackedLayout& layout, int64_t bytes, bool& ready);
  void finish();

  PyObject* tensor_;
  py::object held_;  // the capsule that the call reads or fills
  bool filling_ = false;
};

}  // namespace lamina::bindings
