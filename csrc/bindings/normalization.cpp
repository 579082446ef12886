#include "ops/normalization.h"

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"

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

// Room for the gradient of an operand, also where nobody wants it: kernels write them all.
Array gradient_of(Gradients& gradients, int operand, const Array& like, py::ssize_t size) {
  if (gradients.wanted(operand)) return gradients.make(operand);
  return new_vector(size, like.type());
}

// running += momentum * (factor * batch - running)
void follow(const Optional& running, const Array& batch, double momentum, double factor) {
  if (!running) return;
  const auto update = [&]<class T>(T) {
    const int64_t size = batch.size();
    const T* const now = checked_data<T>(batch, "batch", size);
    T* const mean = checked_data<T>(*running, "running", size);
    for (int64_t i = 0; i < size; ++i) {
      const T target = static_cast<T>(factor) * now[i];
      mean[i] += static_cast<T>(momentum) * (target - mean[i]);
    }
  };
  batch.type() == ElementType::f64 ? update(double{}) : update(float{});
}

constexpr unsigned kStatisticsAreGiven = operand_bits(0, 1, 2);

Call batch_norm_call(std::vector<py::ssize_t> shape, int64_t n, int64_t c, int64_t inner,
                     bool training, double momentum, double eps) {
  if (!training)
    return {std::move(shape),
            [=](const Operands& given, const Array& y, Extras&) {
              batch_norm(*given[0], given[1], given[2], *given[3], *given[4], {}, y, {}, {}, n, c,
                         inner, false, eps);
            },
            {},
            0,
            {},
            kStatisticsAreGiven};
  const double count = static_cast<double>(n * inner);
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras& extras) {
            for (int i : {3, 4})
              expect(!given[i] || (given[i]->writeable() && given[i]->type() == y.type()),
                     "running", "is read-only or has another dtype");
            for (Array& statistic : extras) statistic = new_vector(c, y.type());
            batch_norm(*given[0], given[1], given[2], extras[0], extras[1], {}, y, {}, {}, n, c,
                       inner, true, eps);
            follow(given[3], extras[0], momentum, 1);
            follow(given[4], extras[1], momentum, count / (count - 1));
          },
          [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
            batch_norm(*kept.operands[0], kept.operands[1], {}, kept.extras[0], kept.extras[1],
                       grad_y,
                       gradients.wanted(0) ? gradients.make_over(0)
                                           : new_vector(n * c * inner, grad_y.type()),
                       gradient_of(gradients, 1, grad_y, c), gradient_of(gradients, 2, grad_y, c),
                       n, c, inner, true, eps);
          },
          operand_bits(0, 1),
          {},
          kStatisticsAreGiven};
}

Call group_norm_call(std::vector<py::ssize_t> shape, int64_t outer, int64_t groups,
                     int64_t channels, int64_t inner, double eps) {
  const int64_t size = outer * groups * channels * inner, affine = groups * channels;
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras& extras) {
            for (Array& statistic : extras) statistic = new_vector(outer * groups, y.type());
            group_norm(*given[0], given[1], given[2], extras[0], extras[1], {}, y, {}, {}, outer,
                       groups, channels, inner, eps);
          },
          [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
            group_norm(
                *kept.operands[0], kept.operands[1], {}, kept.extras[0], kept.extras[1], grad_y,
                gradient_of(gradients, 0, grad_y, size), gradient_of(gradients, 1, grad_y, affine),
                gradient_of(gradients, 2, grad_y, affine), outer, groups, channels, inner, eps);
          },
          operand_bits(0, 1)};
}

}  // namespace

LAMINA_BINDINGS(normalization) {
  module.def("batch_norm", &batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("mean"), py::arg("var"), py::arg("grad_y"), py::arg("result"),
             py::arg("grad_weight"), py::arg("grad_bias"), py::arg("n"), py::arg("c"),
             py::arg("inner"), py::arg("training"), py::arg("eps"));
  module.def("batch_norm_call", &batch_norm_call,
             "operands: x, weight, bias, running mean, running var", py::arg("shape"), py::arg("n"),
             py::arg("c"), py::arg("inner"), py::arg("training"), py::arg("momentum"),
             py::arg("eps"));
  module.def("group_norm", &group_norm, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("mean"), py::arg("rstd"), py::arg("grad_y"), py::arg("result"),
             py::arg("grad_weight"), py::arg("grad_bias"), py::arg("outer"), py::arg("groups"),
             py::arg("channels"), py::arg("inner"), py::arg("eps"));
  module.def("group_norm_call", &group_norm_call, "operands: x, weight, bias", py::arg("shape"),
             py::arg("outer"), py::arg("groups"), py::arg("channels"), py::arg("inner"),
             py::arg("eps"));
}

}  // namespace lamina::bindings
