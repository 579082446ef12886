#include "ops/gemm.h"

#include "bindings/activation.h"
#include "bindings/calls.h"
#include "ops/epilogue_call.h"

LAMINA_ARGS(GemmArgs)

namespace lamina::bindings {
namespace {

// c [batch, m, n] = f(op(a) op(b) (+ bias_n + residual)), accumulate: added to c before f; a is
// [batch, m, k] or its transpose, b likewise.
void gemm(const Array& a, const Array& b, const Array& c, const std::optional<Array>& bias_n,
          int64_t batch, int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b,
          bool accumulate, const ActivationName& activation, const std::optional<Array>& residual) {
  visit_dtype(c, [&]<class T>(T) {
    ops::GemmArgs<T> args;
    args.batch = batch, args.m = m, args.n = n, args.k = k;
    args.trans_a = trans_a, args.trans_b = trans_b, args.beta = accumulate ? 1 : 0;
    args.a = input<T>(a, "a", batch * m * k), args.b = input<T>(b, "b", batch * k * n);
    args.c = accumulate ? in_out<T>(c, "c", batch * m * n) : output<T>(c, "c", batch * m * n);
    args.lda = trans_a ? m : k, args.ldb = trans_b ? k : n, args.ldc = n;
    args.stride_a = m * k, args.stride_b = k * n, args.stride_c = m * n;
    args.bias_n = optional_input<T>(bias_n, "bias_n", n);
    args.epilogue = epilogue<T>(activation, residual, batch * m * n);
    args.precision = ops::call_precision(sizeof(T));
    py::gil_scoped_release release;
    const ops::Kernel& kernel =
        ops::plan_kernel("gemm", "fprop", nullptr, ops::precision_name(args.precision));
    ops::call_with_epilogue(kernel, args, args.c, batch * m * n);
  });
}

}  // namespace

LAMINA_BINDINGS(gemm) {
  module.def("gemm", &gemm, py::arg("a"), py::arg("b"), py::arg("c"), py::arg("bias_n"),
             py::arg("batch"), py::arg("m"), py::arg("n"), py::arg("k"), py::arg("trans_a"),
             py::arg("trans_b"), py::arg("accumulate") = false,
             py::arg("activation") = kNoActivation, py::arg("residual") = py::none());
  module.def(
      "linear_call",
      [](std::vector<py::ssize_t> y_shape, int64_t m, int64_t n, int64_t k,
         const ActivationName& activation) {
        return Call{std::move(y_shape), [=](const Operands& given, const Array& y) {
                      gemm(*given[0], *given[1], y, given[2], 1, m, n, k, false, true, false,
                           activation, given[3]);
                    }};
      },
      "operands: x [m, k], weight [n, k], bias, residual", py::arg("y_shape"), py::arg("m"),
      py::arg("n"), py::arg("k"), py::arg("activation"));
}

}  // namespace lamina::bindings
