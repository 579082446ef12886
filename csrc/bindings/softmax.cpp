#include "ops/softmax.h"

#include "bindings/calls.h"
#include "bindings/common.h"

LAMINA_ARGS(SoftmaxArgs)
LAMINA_ARGS(CrossEntropyArgs)

namespace lamina::bindings {
namespace {

void softmax(int64_t outer, int64_t axis, int64_t inner, bool log, const Array& source,
             const std::optional<Array>& grad_y, const Array& result) {
  visit_dtype(result, [&]<class T>(T) {
    const int64_t size = outer * axis * inner;
    ops::SoftmaxArgs<T> args;
    args.outer = outer, args.axis = axis, args.inner = inner, args.log = log;
    (grad_y ? args.y : args.x) = input<T>(source, "source", size);
    args.grad_y = optional_input<T>(grad_y, "grad_y", size);
    args.result = output<T>(result, "result", size);
    py::gil_scoped_release release;
    ops::run("softmax", grad_y ? "dgrad" : "fprop", args);
  });
}

// bad [1], -1 before, becomes the first position with a target outside the classes, if there is
// one.
void cross_entropy(const Array& x, const Array& target, const std::optional<Array>& weight,
                   const std::optional<Array>& grad_loss, const Array& result, int64_t n, int64_t c,
                   int64_t inner, int64_t ignore_index, double label_smoothing, const Array& bad) {
  visit_dtype(result, [&]<class T>(T) {
    ops::CrossEntropyArgs<T> args;
    args.n = n, args.c = c, args.inner = inner, args.ignore_index = ignore_index;
    args.label_smoothing = static_cast<ops::Scalar<T>>(label_smoothing);
    args.x = input<T>(x, "x", n * c * inner);
    args.target = input<int64_t>(target, "target", n * inner);
    args.weight = optional_input<T>(weight, "weight", c);
    args.grad_loss = optional_input<T>(grad_loss, "grad_loss", n * inner);
    // Left as it is by a bad target; dgrad sees targets that fprop has passed.
    args.result = grad_loss ? output<T>(result, "result", n * c * inner)
                            : in_out<T>(result, "result", n * inner);
    args.bad = in_out<int64_t>(bad, "bad", 1);
    py::gil_scoped_release release;
    ops::run("cross_entropy", grad_loss ? "dgrad" : "fprop", args);
  });
}

}  // namespace

LAMINA_BINDINGS(softmax) {
  module.def("softmax", &softmax, py::arg("outer"), py::arg("axis"), py::arg("inner"),
             py::arg("log"), py::arg("source"), py::arg("grad_y"), py::arg("result"));
  module.def(
      "softmax_call",
      [](std::vector<py::ssize_t> shape, int64_t outer, int64_t axis, int64_t inner, bool log) {
        return Call{std::move(shape), [=](const Operands& given, const Array& y) {
                      softmax(outer, axis, inner, log, *given[0], {}, y);
                    }};
      },
      "operands: x", py::arg("shape"), py::arg("outer"), py::arg("axis"), py::arg("inner"),
      py::arg("log"));
  module.def("cross_entropy", &cross_entropy, py::arg("x"), py::arg("target"), py::arg("weight"),
             py::arg("grad_loss"), py::arg("result"), py::arg("n"), py::arg("c"), py::arg("inner"),
             py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("bad"));
}

}  // namespace lamina::bindings
