#include "bindings/elementwise.h"

#include "bindings/calls.h"
#include "bindings/common.h"
#include "core/threads.h"

namespace lamina::bindings {
namespace {

constexpr int64_t kRange = int64_t{1} << 15;  // elements a task: its three arrays share an L2

// y[i] = f(a[i], b[i])
template <class F>
void each(const Array& a, const Array& b, const Array& y, F f) {
  const auto loop = [&]<class T>(T) {
    const int64_t size = y.size();
    const T* const left = checked_data<T>(a, "a", size);
    const T* const right = checked_data<T>(b, "b", size);
    T* const result = checked_data<T>(y, "y", size);
    const auto range = [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) result[i] = f(left[i], right[i]);
    };
    if (size <= kRange) return range(0, size);
    py::gil_scoped_release release;
    parallel_ranges(size, kRange, range);
  };
  y.type() == ElementType::f64 ? loop(double{}) : loop(float{});
}

constexpr auto kAdd = [](auto a, auto b) { return a + b; };
constexpr auto kSubtract = [](auto a, auto b) { return a - b; };
constexpr auto kMultiply = [](auto a, auto b) { return a * b; };

}  // namespace

void add_arrays(PyObject* a, PyObject* b, PyObject* y) {
  Array left, right, result;
  left.load(a), right.load(b), result.load(y);
  each(left, right, result, kAdd);
}

// The operands of each call: a, b.
LAMINA_BINDINGS(elementwise) {
  using Shape = std::vector<py::ssize_t>;
  module.def(
      "add_call",
      [](Shape shape) {
        return Call{std::move(shape),
                    [](const Operands& given, const Array& y, Extras&) {
                      each(*given[0], *given[1], y, kAdd);
                    },
                    [](const Kept&, const Array& grad_y, Gradients& gradients) {
                      for (int i : {0, 1})
                        if (gradients.wanted(i)) gradients.share(i, grad_y);
                    }};
      },
      py::arg("shape"));
  module.def(
      "subtract_call",
      [](Shape shape) {
        return Call{std::move(shape),
                    [](const Operands& given, const Array& y, Extras&) {
                      each(*given[0], *given[1], y, kSubtract);
                    },
                    [](const Kept&, const Array& grad_y, Gradients& gradients) {
                      if (gradients.wanted(0)) gradients.share(0, grad_y);
                      if (gradients.wanted(1))
                        each(grad_y, grad_y, gradients.make(1), [](auto g, auto) { return -g; });
                    }};
      },
      py::arg("shape"));
  module.def(
      "multiply_call",
      [](Shape shape) {
        return Call{std::move(shape),
                    [](const Operands& given, const Array& y, Extras&) {
                      each(*given[0], *given[1], y, kMultiply);
                    },
                    [](const Kept& kept, const Array& grad_y, Gradients& gradients) {
                      for (int i : {0, 1})
                        if (gradients.wanted(i))
                          each(grad_y, *kept.operands[1 - i], gradients.make(i), kMultiply);
                    },
                    0,
                    {operand_bits(1), operand_bits(0)}};
      },
      py::arg("shape"));
}

}  // namespace lamina::bindings
