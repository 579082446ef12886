#include "ops/local_response_norm.h"

#include <array>

#include "bindings/common.h"

LAMINA_ARGS(LocalResponseNormArgs)

namespace lamina::bindings {
namespace {

using Triple = std::array<int64_t, 3>;

void local_response_norm(int64_t slabs, const Triple& size, const Triple& window, double alpha,
                         double beta, double k, const Array& x, const std::optional<Array>& grad_y,
                         const Array& result) {
  visit_dtype(x, [&]<class T>(T) {
    ops::LocalResponseNormArgs<T> args;
    args.slabs = slabs;
    for (int axis = 0; axis < 3; ++axis)
      args.size[axis] = size[axis], args.window[axis] = window[axis];
    args.alpha = static_cast<ops::Scalar<T>>(alpha), args.beta = static_cast<ops::Scalar<T>>(beta);
    args.k = static_cast<ops::Scalar<T>>(k);
    const int64_t elements = slabs * args.slab();
    args.x = input<T>(x, "x", elements);
    args.grad_y = optional_input<T>(grad_y, "grad_y", elements);
    args.result = output<T>(result, "result", elements);
    py::gil_scoped_release release;
    ops::run("local_response_norm", grad_y ? "dgrad" : "fprop", args);
  });
}

}  // namespace

LAMINA_BINDINGS(local_response_norm) {
  module.def("local_response_norm", &local_response_norm, py::arg("slabs"), py::arg("size"),
             py::arg("window"), py::arg("alpha"), py::arg("beta"), py::arg("k"), py::arg("x"),
             py::arg("grad_y"), py::arg("result"));
}

}  // namespace lamina::bindings
