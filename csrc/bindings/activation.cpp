#include "bindings/activation.h"

#include "bindings/calls.h"
#include "bindings/numpy_array.h"
#include "bindings/on_processor.h"
#include "ops/epilogue_call.h"
#include "ops/prelu_gradients.h"

LAMINA_ARGS(PreluArgs)
LAMINA_ARGS(PreluGradientArgs)
LAMINA_ARGS(GluArgs)

namespace lamina::bindings {

ops::Activation activation_kind(const std::string& name) {
  for (int kind = 0; kind < static_cast<int>(std::size(ops::kActivationNames)); ++kind)
    if (name == ops::kActivationNames[kind]) return static_cast<ops::Activation>(kind);
  throw std::logic_error("internal: unknown activation " + name);
}

void activation(ops::Activation kind, double a, double b, const Array& x,
                const std::optional<Array>& grad_y, const Array& result) {
  visit_dtype(result, [&]<class T>(T) {
    ops::ActivationArgs<T> args;
    args.kind = kind;
    args.a = static_cast<ops::Scalar<T>>(a), args.b = static_cast<ops::Scalar<T>>(b);
    args.size = result.size();
    args.x = input<T>(x, "x", args.size);
    args.grad_y = optional_input<T>(grad_y, "grad_y", args.size);
    args.result = output<T>(result, "result", args.size);
    py::gil_scoped_release release;
    ops::run("activation", grad_y ? "dgrad" : "fprop", args);
  });
}

Array gradient_of_argument(const ActivationName& name, const Array& y, const Array& grad_y) {
  const auto& [kind, a, b] = name;
  if (kind == "identity") return grad_y;
  Array gradient;
  gradient.load(new_like(grad_y.object()));
  activation(activation_kind(kind), a, b, y, grad_y, gradient);
  return gradient;
}

namespace {

template <class T>
void fill(ops::PreluArgs<T>& args, const Array& x, const Array& weight,
          const std::optional<Array>& grad_y, int64_t n, int64_t c, int64_t inner) {
  args.n = n, args.c = c, args.inner = inner, args.weights = weight.size();
  expect(args.weights == 1 || args.weights == c, "weight", "does not match the channels");
  args.x = input<T>(x, "x", n * c * inner);
  args.weight = input<T>(weight, "weight", args.weights);
  args.grad_y = optional_input<T>(grad_y, "grad_y", n * c * inner);
}

void prelu(const std::string& pass, const Array& x, const Array& weight,
           const std::optional<Array>& grad_y, const Array& result, int64_t n, int64_t c,
           int64_t inner) {
  visit_dtype(result, [&]<class T>(T) {
    ops::PreluArgs<T> args;
    fill(args, x, weight, grad_y, n, c, inner);
    args.result = output<T>(result, "result", pass == "wgrad" ? args.weights : n * c * inner);
    py::gil_scoped_release release;
    ops::run("prelu", pass.c_str(), args);
  });
}

// dgrad and wgrad by one kernel.
void prelu_gradients(const Array& x, const Array& weight, const Array& grad_y, const Array& grad_x,
                     const Array& grad_weight, int64_t n, int64_t c, int64_t inner) {
  visit_dtype(grad_x, [&]<class T>(T) {
    ops::PreluGradientArgs<T> args;
    fill(args, x, weight, grad_y, n, c, inner);
    args.result = output<T>(grad_x, "grad_x", n * c * inner);
    args.grad_weight = output<T>(grad_weight, "grad_weight", args.weights);
    py::gil_scoped_release release;
    ops::run("prelu", "gradients", args);
  });
}

// Of halves [outer][inner] of x; with grad_y the gradient of x.
void glu(const Array& x, const std::optional<Array>& grad_y, const Array& result, int64_t outer,
         int64_t inner) {
  visit_float(result, [&]<class T>(T) {
    const int64_t size = outer * inner;
    ops::GluArgs<T> args;
    args.outer = outer, args.inner = inner;
    args.x = checked_data<T>(x, "x", 2 * size);
    if (grad_y) args.grad_y = checked_data<T>(*grad_y, "grad_y", size);
    args.result = checked_data<T>(result, "result", grad_y ? 2 * size : size);
    run_on_processor("glu", grad_y ? "dgrad" : "fprop", args, size);
  });
}

}  // namespace

LAMINA_BINDINGS(activation) {
  module.def(
      "activation",
      [](const std::string& kind, double a, double b, const Array& x,
         const std::optional<Array>& grad_y,
         const Array& result) { activation(activation_kind(kind), a, b, x, grad_y, result); },
      py::arg("kind"), py::arg("a"), py::arg("b"), py::arg("x"), py::arg("grad_y"),
      py::arg("result"));
  module.def(
      "activation_call",
      [](std::vector<py::ssize_t> shape, const std::string& name, double a, double b) {
        const ops::Activation kind = activation_kind(name);
        Call call{std::move(shape),
                  [=](const Operands& given, const Array& y, Extras&) {
                    activation(kind, a, b, *given[0], {}, y);
                  },
                  [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
                    activation(kind, a, b, *kept.operands[0], grad_y, gradients.make_over(0));
                  },
                  operand_bits(0)};
        call.by_places = true;
        return call;
      },
      "operands: x", py::arg("shape"), py::arg("kind"), py::arg("a"), py::arg("b"));
  module.def("activation_kinds", [] {
    return std::vector<std::string>(std::begin(ops::kActivationNames),
                                    std::end(ops::kActivationNames));
  });
  module.def("prelu", &prelu, py::arg("pass_"), py::arg("x"), py::arg("weight"), py::arg("grad_y"),
             py::arg("result"), py::arg("n"), py::arg("c"), py::arg("inner"));
  module.def("prelu_gradients", &prelu_gradients, py::arg("x"), py::arg("weight"),
             py::arg("grad_y"), py::arg("grad_x"), py::arg("grad_weight"), py::arg("n"),
             py::arg("c"), py::arg("inner"));
  module.def("glu", &glu, py::arg("x"), py::arg("grad_y"), py::arg("result"), py::arg("outer"),
             py::arg("inner"));
  module.def(
      "glu_call",
      [](std::vector<py::ssize_t> shape, int64_t outer, int64_t inner) {
        return Call{std::move(shape),
                    [=](const Operands& given, const Array& y, Extras&) {
                      glu(*given[0], {}, y, outer, inner);
                    },
                    [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
                      glu(*kept.operands[0], grad_y, gradients.make(0), outer, inner);
                    },
                    operand_bits(0)};
      },
      "operands: x", py::arg("shape"), py::arg("outer"), py::arg("inner"));
}

}  // namespace lamina::bindings
