// NumPy's own loops over elements, without the rest of a call of a ufunc: the same instructions and
// therefore the same bits, on as many threads as Lamina has. Where NumPy's are slow, kernels.
#pragma once

#include "bindings/broadcast.h"
#include "ops/elementwise.h"

namespace lamina::bindings {

// A loop for operands of one dtype; result of that dtype or boolean.
struct Loop {
  void (*run)(char** data, const py::ssize_t* count, const py::ssize_t* steps,
              void* details) = nullptr;
  void* details = nullptr;
};

// The loops of one function for the dtypes of operands that a call may know.
class Loops {
 public:
  // By the name in NumPy, such as "add", or of a kernel, of floats alone; made once.
  static const Loops& of(const char* name);

  // y = f(a) or f(a, b); a and b of one dtype. Throws std::logic_error for a dtype without a loop.
  void each(const Broadcast& shapes, const Array& a, const Array* b, const Array& y) const;
  // The same of operands in any strides, aligned, as a new array: in C order, or in the order of
  // the operands' memory.
  py::object each_strided(const std::vector<py::ssize_t>& shape, PyObject* a, PyObject* b,
                          ElementType result, bool c_order) const;
  // These, where they are loops of NumPy, which take any strides; else null.
  const Loops* of_any_strides() const { return kernel_ ? nullptr : this; }

 private:
  const Loop& at(ElementType type) const;

  Loop loops_[4];
  int operands_ = 0;
  bool dense_ = false;  // elements that lie apart have other bits, or take longer than a copy
  std::optional<ops::Elementwise> kernel_;
};

// The result of comparisons is boolean, of others the dtype of the operands.
inline void each_of(const Loops& loops, const Array& a, const Array& y) {
  loops.each(Broadcast(a.size()), a, nullptr, y);
}

}  // namespace lamina::bindings
