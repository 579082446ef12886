#include "ops/normalization.h"

#include "bindings/activation.h"
#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "bindings/on_processor.h"
#include "ops/epilogue_call.h"

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

// Whether the kernels of batch norm apply f and f' themselves.
bool takes(const ActivationName& name) {
  return ops::applies_epilogue(ops::find_kernel("batch_norm", "dgrad"),
                               activation_kind(std::get<0>(name)));
}

// With grad_y, an activation and no kernel that takes it, grad_residual must be given.
void batch_norm(const Array& x, const Optional& weight, const Optional& bias, const Array& mean,
                const Array& var, const Optional& grad_y, const Array& result,
                const Optional& grad_weight, const Optional& grad_bias, int64_t n, int64_t c,
                int64_t inner, bool training, double eps, const ActivationName& name,
                const Optional& residual, const Optional& y, const Optional& grad_residual) {
  const auto& [kind, a, b] = name;
  if (grad_y && grad_residual && !takes(name)) {
    activation(activation_kind(kind), a, b, *y, grad_y, *grad_residual);
    return batch_norm(x, weight, bias, mean, var, grad_residual, result, grad_weight, grad_bias, n,
                      c, inner, training, eps, kNoActivation, {}, {}, {});
  }
  visit_dtype(result, [&]<class T>(T) {
    const int64_t size = n * c * inner;
    ops::BatchNormArgs<T> args;
    args.n = n, args.c = c, args.inner = inner, args.training = training;
    args.eps = static_cast<ops::Scalar<T>>(eps);
    args.x = input<T>(x, "x", size);
    args.weight = optional_input<T>(weight, "weight", c);
    args.bias = optional_input<T>(bias, "bias", c);
    args.mean = statistics<T>(mean, "mean", c, training && !grad_y);
    args.var = statistics<T>(var, "var", c, training && !grad_y);
    args.grad_y = optional_input<T>(grad_y, "grad_y", size);
    args.result = output<T>(result, "result", size);
    args.grad_weight = optional_output<T>(grad_weight, "grad_weight", c);
    args.grad_bias = optional_output<T>(grad_bias, "grad_bias", c);
    args.epilogue = epilogue<T>(name, residual, size);
    args.y = optional_input<T>(y, "y", size);
    args.grad_residual = optional_output<T>(grad_residual, "grad_residual", size);
    expect(!grad_y || (grad_weight && grad_bias), "grad_weight", "is missing");
    expect(!grad_residual || y, "y", "is missing");
    const ops::Kernel& kernel = ops::plan_kernel("batch_norm", grad_y ? "dgrad" : "fprop");
    py::gil_scoped_release release;
    if (grad_y) return ops::call_kernel(kernel, args);
    ops::call_with_epilogue(kernel, args, args.result, size);
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

// Rows of x [outer][channels]; with grad_y the gradients.
void rms_norm(const Array& x, const Optional& weight, const Array& rstd, const Optional& grad_y,
              const Array& result, const Optional& grad_weight, int64_t outer, int64_t channels,
              double eps) {
  visit_float(result, [&]<class T>(T) {
    const int64_t size = outer * channels;
    ops::GroupNormArgs<T> args;
    args.outer = outer, args.groups = args.inner = 1, args.channels = channels;
    args.eps = static_cast<T>(eps);
    args.x = checked_data<T>(x, "x", size);
    if (weight) args.weight = checked_data<T>(*weight, "weight", channels);
    args.rstd = checked_data<T>(rstd, "rstd", outer);
    if (grad_y) args.grad_y = checked_data<T>(*grad_y, "grad_y", size);
    args.result = checked_data<T>(result, "result", size);
    if (grad_weight) args.grad_weight = checked_data<T>(*grad_weight, "grad_weight", channels);
    expect(!grad_y || grad_weight, "grad_weight", "is missing");
    run_on_processor("rms_norm", grad_y ? "dgrad" : "fprop", args, size);
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
  visit_float(batch, [&]<class T>(T) {
    const int64_t size = batch.size();
    const T* const now = checked_data<T>(batch, "batch", size);
    T* const mean = checked_data<T>(*running, "running", size);
    for (int64_t i = 0; i < size; ++i) {
      const T target = static_cast<T>(factor) * now[i];
      mean[i] += static_cast<T>(momentum) * (target - mean[i]);
    }
  });
}

constexpr unsigned kWithoutStatistics = operand_bits(0, 1, 2, 5);

Call batch_norm_call(std::vector<py::ssize_t> shape, int64_t n, int64_t c, int64_t inner,
                     bool training, double momentum, double eps, const ActivationName& name,
                     bool y_tells) {
  const auto given_statistics = [=](const Operands& given, const Array& y, Extras&) {
    batch_norm(*given[0], given[1], given[2], *given[3], *given[4], {}, y, {}, {}, n, c, inner,
               false, eps, name, given[5], {}, {});
  };
  if (!training) return {std::move(shape), given_statistics, {}, 0, {}, kWithoutStatistics};
  const double count = static_cast<double>(n * inner);
  const auto forward = [=](const Operands& given, const Array& y, Extras& extras) {
    for (int i : {3, 4})
      expect(!given[i] || (given[i]->writeable() && given[i]->type() == y.type()), "running",
             "is read-only or has another dtype");
    for (Array& statistic : extras) statistic = new_vector(c, y.type());
    batch_norm(*given[0], given[1], given[2], extras[0], extras[1], {}, y, {}, {}, n, c, inner,
               true, eps, name, given[5], {}, {});
    follow(given[3], extras[0], momentum, 1);
    follow(given[4], extras[1], momentum, count / (count - 1));
  };
  Call call{std::move(shape), forward, {}, 0, {}, kWithoutStatistics};
  if (!y_tells) return call;
  const bool plain = name == kNoActivation;
  call.keeps = operand_bits(0, 1) | (plain ? 0 : operand_bits(2) | kResult);
  call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    const bool has_residual = !gradients.shape(5).empty(), wanted = gradients.wanted(5);
    const auto room = [&](int operand, bool over) -> Array {
      if (!gradients.wanted(operand)) return new_vector(n * c * inner, grad_y.type());
      return over ? gradients.make_over(operand) : gradients.make(operand);
    };
    Optional grad_residual, y;
    if (!plain && (has_residual || !takes(name))) grad_residual = room(5, true), y = kept.result;
    if (plain && wanted) gradients.share(5, grad_y);
    batch_norm(*kept.operands[0], kept.operands[1], kept.operands[2], kept.extras[0],
               kept.extras[1], grad_y, room(0, !wanted), gradient_of(gradients, 1, grad_y, c),
               gradient_of(gradients, 2, grad_y, c), n, c, inner, true, eps, name, {}, y,
               grad_residual);
  };
  return call;
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

Call rms_norm_call(std::vector<py::ssize_t> shape, int64_t outer, int64_t channels, double eps) {
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras& extras) {
            extras[0] = new_vector(outer, y.type());
            rms_norm(*given[0], given[1], extras[0], {}, y, {}, outer, channels, eps);
          },
          [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
            rms_norm(*kept.operands[0], kept.operands[1], kept.extras[0], grad_y,
                     gradient_of(gradients, 0, grad_y, outer * channels),
                     gradient_of(gradients, 1, grad_y, channels), outer, channels, eps);
          },
          operand_bits(0, 1)};
}

}  // namespace

LAMINA_BINDINGS(normalization) {
  module.def("batch_norm", &batch_norm, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("mean"), py::arg("var"), py::arg("grad_y"), py::arg("result"),
             py::arg("grad_weight"), py::arg("grad_bias"), py::arg("n"), py::arg("c"),
             py::arg("inner"), py::arg("training"), py::arg("eps"),
             py::arg("activation") = kNoActivation, py::arg("residual") = py::none(),
             py::arg("y") = py::none(), py::arg("grad_residual") = py::none());
  module.def("batch_norm_call", &batch_norm_call,
             "operands: x, weight, bias, running mean, running var, residual; y_tells: the\n"
             "activation's derivative follows from y",
             py::arg("shape"), py::arg("n"), py::arg("c"), py::arg("inner"), py::arg("training"),
             py::arg("momentum"), py::arg("eps"), py::arg("activation"), py::arg("y_tells"));
  module.def("group_norm", &group_norm, py::arg("x"), py::arg("weight"), py::arg("bias"),
             py::arg("mean"), py::arg("rstd"), py::arg("grad_y"), py::arg("result"),
             py::arg("grad_weight"), py::arg("grad_bias"), py::arg("outer"), py::arg("groups"),
             py::arg("channels"), py::arg("inner"), py::arg("eps"));
  module.def("group_norm_call", &group_norm_call, "operands: x, weight, bias", py::arg("shape"),
             py::arg("outer"), py::arg("groups"), py::arg("channels"), py::arg("inner"),
             py::arg("eps"));
  module.def("rms_norm", &rms_norm, py::arg("x"), py::arg("weight"), py::arg("rstd"),
             py::arg("grad_y"), py::arg("result"), py::arg("grad_weight"), py::arg("outer"),
             py::arg("channels"), py::arg("eps"));
  module.def("rms_norm_call", &rms_norm_call, "operands: x, weight", py::arg("shape"),
             py::arg("outer"), py::arg("channels"), py::arg("eps"));
}

}  // namespace lamina::bindings
