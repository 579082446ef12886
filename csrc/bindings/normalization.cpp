#include "ops/normalization.h"

#include "bindings/calls.h"
#include "bindings/common.h"

LAMINA_ARGS(BatchNormArgs)
LAMINA_ARGS(GroupNormArgs)

namespace lamina::bindings {
namespace {

using Optional = std::optional<Array>;

// Statistics in the type of the arithmetic, written or read by the kernel.
template <class T>
ops::Scalar<T>* statistics(const Array& array, const char* name, int64_t elements, bool written) {
  using S = ops::Scalar<T>;
  return written ? output<S>(array, name, elements)
                 : const_cast<S*>(input<S>(array, name, elements));
}

void batch_norm(const Array& x, const Optional& weight, const Optional& bias, const Array& mean,
                const Array& var, const Optional& grad_y, const Array& result,
                const Optional& grad_weight, const Optional& grad_bias, int64_t n, int64_t c,
                int64_t inner, bool training, double eps) {
  visit_dtype(result, [&]<class T>(T) {
    ops::BatchNormArgs<T> args;
    args.n = n, args.c = c, args.inner = inner, args.training = training;
    args.eps = static_cast<ops::Scalar<T>>(eps);
    args.x = input<T>(x, "x", n * c * inner);
    args.weight = optional_input<T>(weight, "weight", c);
    args.bias = optional_input<T>(bias, "bias", c);
    args.mean = statistics<T>(mean, "mean", c, training && !grad_y);
    args.var = statistics<T>(var, "var", c, training && !grad_y);
    args.grad_y = optional_input<T>(grad_y, "grad_y", n * c * inner);
    args.result = output<T>(result, "result", n * c * inner);
    args.grad_weight = optional_output<T>(grad_weight, "grad_weight", c);
    args.grad_bias = optional_output<T>(grad_bias, "grad_bias", c);
    expect(!grad_y || (grad_weight && grad_bias), "grad_weight", "is missing");
    py::gil_scoped_release release;
    ops::run("batch_norm", grad_y ? "dgrad" : "fprop", args);
  });
}

void group_norm(const Array& x, const Optional& weight, const Optional& bias, const Array& mean,
                const Array& rstd, const Optional& grad_y, const Array& result,
                const Optional& grad_weight, const Optional& grad_bias, int64_t outer,
                int64_t groups, int64_t channels, int64_t inner, double eps) {
  visit_dtype(result, [&]<class T>(T) {
    const int64_t size = outer * groups * channels * inner, affine = groups * channels;
    ops::GroupNormArgs<T> args;
    args.outer = outer, args.groups = groups, args.channels = channels, args.inner = inner;
    args.eps = static_cast<ops::Scalar<T>>(eps);
    args.x = input<T>(x, "x", size);
    args.weight = optional_input<T>(weight, "weight", affine);
    args.bias = optional_input<T>(bias, "bias", affine);
    args.mean = statistics<T>(mean, "mean", outer * groups, !grad_y);
    args.rstd = statistics<T>(rstd, "rstd", outer * groups, !grad_y);
    args.grad_y = optional_input<T>(grad_y, "grad_y", size);
    args.result = output<T>(result, "result", size);
    args.grad_weight = optional_output<T>(grad_weight, "grad_weight", affine);
    args.grad_bias = optional_output<T>(grad_bias, "grad_bias", affine);
    expect(!grad_y || (grad_weight && grad_bias), "grad_weight", "is missing");
    py::gil_scoped_release release;
    ops::run("group_norm", grad_y ? "dgrad" : "fprop", args);
  });
}

}  // namespace

LAMINA_BINDINGS(normalization) {
  module.def("batch_norm", &batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("mean"), py::arg("var"), py::arg("grad_y"), py::arg("result"),
             py::arg("grad_weight"), py::arg("grad_bias"), py::arg("n"), py::arg("c"),
             py::arg("inner"), py::arg("training"), py::arg("eps"));
  module.def(
      "batch_norm_call",
      [](std::vector<py::ssize_t> shape, int64_t n, int64_t c, int64_t inner, double eps) {
        return Call{std::move(shape), [=](const Operands& given, const Array& y) {
                      batch_norm(*given[0], given[1], given[2], *given[3], *given[4], {}, y, {}, {},
                                 n, c, inner, false, eps);
                    }};
      },
      "With given statistics; operands: x, weight, bias, mean, var", py::arg("shape"), py::arg("n"),
      py::arg("c"), py::arg("inner"), py::arg("eps"));
  module.def("group_norm", &group_norm, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("mean"), py::arg("rstd"), py::arg("grad_y"), py::arg("result"),
             py::arg("grad_weight"), py::arg("grad_bias"), py::arg("outer"), py::arg("groups"),
             py::arg("channels"), py::arg("inner"), py::arg("eps"));
}

}  // namespace lamina::bindings
