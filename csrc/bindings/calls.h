// Calls that were checked before. A function of Python checks its arguments once for each set of
// shapes, dtypes and options, and leaves what follows from them as a `Call`; the next call with
// such arguments finds it by one look-up and goes to the kernel at once. Where a gradient is to be
// recorded, so is the call itself, and backward goes to the kernels at once, too; a Call without
// `gradient` goes to its Function instead.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <vector>

#include "bindings/array.h"

namespace lamina::bindings {

inline constexpr int kMaxOperands = 6, kMaxExtras = 2;
using Operands = std::optional<Array>[kMaxOperands];
// What `run` leaves for `gradient` beside the operands and the result, such as statistics.
struct Extras : std::array<Array, kMaxExtras> {
  bool wanted = true;  // there will be a gradient
};

// What a recorded call kept.
struct Kept {
  Operands operands;
  Array result;
  Extras extras;
};

// The gradients of the operands, as a recorded call fills them.
class Gradients {
 public:
  using Shape = std::vector<py::ssize_t>;
  // grad_y is null where others hold it; arrived: what take_arrived gives, or null.
  Gradients(unsigned wanted, const Shape* shapes, ElementType type, const Array* grad_y,
            const Array* arrived)
      : wanted_(wanted), shapes_(shapes), type_(type), grad_y_(grad_y), arrived_(arrived) {}

  bool wanted(int operand) const { return (wanted_ >> operand & 1) != 0; }
  // A new array of the operand's shape.
  const Array& make(int operand);
  // The array of grad_y where nobody else holds it, or a new one: of an operand of the result's
  // shape, for kernels that read an element of grad_y before they write the gradient's.
  const Array& make_over(int operand);
  // The sum of the gradients that others sent to operand 0 before, if there is one: who takes it
  // adds it to the gradient of that operand, which saves a pass over both.
  std::optional<Array> take_arrived();
  // An array that may show the memory of another gradient, in the operand's shape.
  void share(int operand, const Array& gradient) { arrays_[operand] = gradient; }
  bool shows(int operand, const void* memory) const {
    return arrays_[operand] && arrays_[operand]->data() == memory;
  }
  const Shape& shape(int operand) const { return shapes_[operand]; }
  // Takes the reference to the operand's gradient; null where there is none.
  PyObject* release(int operand);
  bool written_over() const { return written_over_; }
  bool arrived_taken() const { return arrived_taken_; }

 private:
  unsigned wanted_;
  const Shape* shapes_;
  ElementType type_;
  const Array *grad_y_, *arrived_;
  bool written_over_ = false, arrived_taken_ = false;
  Operands arrays_;
};

// One result, and where asked for the first of the extras as another.
struct Call {
  std::vector<py::ssize_t> shape;
  std::function<void(const Operands& operands, const Array& result, Extras& extras)> run;
  std::function<void(const Kept& kept, const Array& grad_y, Gradients& gradients)> gradient = {};
  // What `gradient` reads, as bits of operands, and of the result: always, and for the gradient of
  // each operand.
  unsigned keeps = 0;
  unsigned keeps_for[kMaxOperands] = {};
  unsigned differentiable = ~0U;  // bits of the operands that `apply` sees as Tensors
  int packs = -1;           // the operand whose packed form may be kept where nothing is recorded
  unsigned compiled = ~0U;  // bits of those whose gradients `gradient` makes
  // What `run` does for the one operand as it lies in memory, in an order or with gaps that are not
  // C order. False where it must be copied.
  std::function<bool(const Array& operand, const Array& result)> run_uncopied = {};
  // What `run` does, where operands may have any strides; else they are copied to C order.
  const class Loops* loops = nullptr;
  bool by_places = false;  // an element of the result is made of those at its place
  bool copies = false;     // operands in other orders are copied however large they are
  bool constant = false;   // the result has no gradient
  bool second = false;     // extras[0] is a result without a gradient
};
inline constexpr unsigned kResult = 1U << kMaxOperands;
template <class... Index>
constexpr unsigned operand_bits(Index... index) {
  return ((1U << index) | ... | 0U);
}

// The context of a recorded call, in its Node.
bool is_recorded_call(PyObject* context);
bool keeps_arrays(PyObject* context);
// Fills the gradients (null where none) of as many operands as the node has edges, and gives the
// bits of those that share the memory of grad_y. Where that is `owned`, held by nobody else, one
// gradient may be written over it instead. `arrived`, or null: the gradients of operand 0 so far;
// it becomes null where its sum with the new one is what the call gives.
unsigned differentiate(PyObject* context, PyObject* grad_y, bool owned, PyObject*& arrived,
                       PyObject** gradients);

// Makes the tensor the result of a call with one operand, of which nothing is kept.
void record_result(py::handle function, py::handle tensor, py::handle operand, Call call);

}  // namespace lamina::bindings
