#include "ops/pdist.h"

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/on_processor.h"

LAMINA_ARGS(PdistArgs)

namespace lamina::bindings {
namespace {

// y of x [n, d]; with grad_y the gradient of x.
void pdist(bool euclidean, int64_t n, int64_t d, const Array& x, const std::optional<Array>& y,
           const std::optional<Array>& grad_y, const Array& result) {
  visit_float(result, [&]<class T>(T) {
    const int64_t pairs = n * (n - 1) / 2;
    ops::PdistArgs<T> args;
    args.n = n, args.d = d, args.euclidean = euclidean;
    args.x = checked_data<T>(x, "x", n * d);
    if (y) args.y = checked_data<T>(*y, "y", pairs);
    if (grad_y) args.grad_y = checked_data<T>(*grad_y, "grad_y", pairs);
    args.result = checked_data<T>(result, "result", grad_y ? n * d : pairs);
    expect(n > 1 && d > 0 && (!grad_y || !euclidean || y), "x", "has no pairs, or y is missing");
    const OnProcessor processor;
    const py::gil_scoped_release release;
    ops::run("pdist", grad_y ? "dgrad" : "fprop", args);
  });
}

}  // namespace

LAMINA_BINDINGS(pdist) {
  module.def("pdist", &pdist, py::arg("euclidean"), py::arg("n"), py::arg("d"), py::arg("x"),
             py::arg("y"), py::arg("grad_y"), py::arg("result"));
  module.def(
      "pdist_call",
      [](std::vector<py::ssize_t> shape, bool euclidean, int64_t n, int64_t d) {
        Call call;
        call.shape = std::move(shape);
        call.run = [=](const Operands& given, const Array& y, Extras&) {
          pdist(euclidean, n, d, *given[0], {}, {}, y);
        };
        call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
          std::optional<Array> y;
          if (euclidean) y = kept.result;
          pdist(euclidean, n, d, *kept.operands[0], y, grad_y, gradients.make(0));
        };
        call.keeps = operand_bits(0) | (euclidean ? kResult : 0);
        return call;
      },
      "operands: x [n, d]", py::arg("shape"), py::arg("euclidean"), py::arg("n"), py::arg("d"));
}

}  // namespace lamina::bindings
