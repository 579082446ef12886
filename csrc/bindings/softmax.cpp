#include "bindings/softmax.h"

#include "bindings/calls.h"
#include "bindings/common.h"
#include "ops/softmax.h"

LAMINA_ARGS(SoftmaxArgs)

namespace lamina::bindings {
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

LAMINA_BINDINGS(softmax) {
  module.def("softmax", &softmax, py::arg("outer"), py::arg("axis"), py::arg("inner"),
             py::arg("log"), py::arg("source"), py::arg("grad_y"), py::arg("result"));
  module.def(
      "softmax_call",
      [](std::vector<py::ssize_t> shape, int64_t outer, int64_t axis, int64_t inner, bool log) {
        return Call{std::move(shape),
                    [=](const Operands& given, const Array& y, Extras&) {
                      softmax(outer, axis, inner, log, *given[0], {}, y);
                    },
                    [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
                      softmax(outer, axis, inner, log, kept.result, grad_y, gradients.make(0));
                    },
                    kResult};
      },
      "operands: x", py::arg("shape"), py::arg("outer"), py::arg("axis"), py::arg("inner"),
      py::arg("log"));
}

}  // namespace lamina::bindings
