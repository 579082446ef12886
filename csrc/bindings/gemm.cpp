#include "ops/gemm.h"

#include "bindings/activation.h"
#include "bindings/calls.h"
#include "bindings/filter_store.h"
#include "ops/bf16_unit.h"
#include "ops/epilogue_call.h"
#include "shared/implicit_gemm.h"

LAMINA_ARGS(GemmArgs)

namespace lamina::bindings {
namespace {

template <class T>
ops::PackedLayout packed_layout(const ops::Kernel& kernel, const ops::GemmArgs<T>& args) {
  constexpr int64_t kMostRows = 256;  // more of them hide the packing
  ops::PackedLayout layout{&kernel};
  if (std::strcmp(kernel.backend, "cpu") != 0 || args.m > kMostRows) return layout;
  const bool dots = args.m <= ops::kFewDots && args.trans_b && !args.trans_a;
  if constexpr (std::is_same_v<T, float>) layout.form = ops::gemm_pieces(args);
  if (layout.form > 0)
    layout.elements = args.batch * split_elements(args.n, args.k, layout.form);
  else if (!dots)
    layout.elements = ops::packed_elements(args.batch, args.n, args.k);
  return layout;
}

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
    const ops::Kernel& kernel =
        ops::plan_kernel("gemm", "fprop", nullptr, ops::precision_name(args.precision));
    FilterStore* const filters = b.filters();
    ops::PackedFilters<T> packed;
    if (filters != nullptr) packed = filters->find<T>(packed_layout(kernel, args));
    if (packed.data != nullptr) args.packed = &packed;
    {
      py::gil_scoped_release release;
      ops::call_with_epilogue(kernel, args, args.c, batch * m * n);
    }
    if (filters != nullptr) filters->keep(packed);
  });
}

// Few numbers beside those of the products: one thread.
void sum_rows(const Array& x, const Array& sums) {
  visit_float(sums, [&]<class T>(T) {
    const int64_t n = sums.size(), m = n == 0 ? 0 : x.size() / n;
    const T* const source = checked_data<T>(x, "x", m * n);
    T* const result = checked_data<T>(sums, "sums", n);
    const py::gil_scoped_release release;
    std::fill(result, result + n, T{0});
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) result[j] += source[i * n + j];
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
         const ActivationName& activation, bool y_tells) {
        Call call{std::move(y_shape), [=](const Operands& given, const Array& y, Extras&) {
                    gemm(*given[0], *given[1], y, given[2], 1, m, n, k, false, true, false,
                         activation, given[3]);
                  }};
        call.packs = 1;
        if (!y_tells) return call;
        call.keeps = operand_bits(0, 1) | (activation == kNoActivation ? 0 : kResult);
        call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
          const Array grad = gradient_of_argument(activation, kept.result, grad_y);
          const auto product = [&](int operand, const Array& b, int64_t rows, int64_t inner,
                                   bool transposed) {
            if (gradients.wanted(operand))
              gemm(grad, b, gradients.make(operand), {}, 1, rows, k, inner, transposed, false,
                   false, kNoActivation, {});
          };
          product(0, *kept.operands[1], m, n, false);
          product(1, *kept.operands[0], n, m, true);
          if (gradients.wanted(2)) sum_rows(grad, gradients.make(2));
          if (gradients.wanted(3)) gradients.share(3, grad);
        };
        return call;
      },
      "operands: x [m, k], weight [n, k], bias, residual; y_tells as conv_call", py::arg("y_shape"),
      py::arg("m"), py::arg("n"), py::arg("k"), py::arg("activation"), py::arg("y_tells"));
  module.def("sum_rows", &sum_rows, "sums [n] of x [m, n] over its rows, in order", py::arg("x"),
             py::arg("sums"));
}

}  // namespace lamina::bindings
