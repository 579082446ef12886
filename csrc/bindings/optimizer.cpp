#include "ops/optimizer.h"

#include "bindings/common.h"

LAMINA_ARGS(OptimizerArgs)

namespace lamina::bindings {
namespace {

ops::Optimizer kind_of(const std::string& name) {
  for (int kind = 0; kind < static_cast<int>(std::size(ops::kOptimizerNames)); ++kind)
    if (name == ops::kOptimizerNames[kind]) return static_cast<ops::Optimizer>(kind);
  throw std::logic_error("internal: unknown optimizer " + name);
}

void optimizer_step(const std::string& kind, const Array& param, const Array& grad,
                    const std::vector<Array>& states, const std::vector<double>& coefficients,
                    double decay, double keep) {
  visit_dtype(param, [&]<class T>(T) {
    using Scalar = ops::Scalar<T>;
    ops::OptimizerArgs<T> args;
    args.kind = kind_of(kind);
    const int needed = ops::kOptimizerStates[static_cast<int>(args.kind)];
    expect(static_cast<int>(states.size()) == needed, "states", "has another number of arrays");
    expect(coefficients.size() <= ops::kMaxOptimizerCoefficients, "coefficients", "is too long");
    args.size = param.size();
    args.param = in_out<T>(param, "param", args.size);
    args.grad = input<T>(grad, "grad", args.size);
    for (size_t i = 0; i < states.size(); ++i)
      args.state[i] = in_out<T>(states[i], "state", args.size);
    args.decay = static_cast<Scalar>(decay), args.keep = static_cast<Scalar>(keep);
    for (size_t i = 0; i < coefficients.size(); ++i)
      args.coefficient[i] = static_cast<Scalar>(coefficients[i]);
    py::gil_scoped_release release;
    ops::run("optimizer_step", "fprop", args);
  });
}

}  // namespace

LAMINA_BINDINGS(optimizer) {
  module.def("optimizer_step", &optimizer_step, py::arg("kind"), py::arg("param"), py::arg("grad"),
             py::arg("states"), py::arg("coefficients"), py::arg("decay") = 0.0,
             py::arg("keep") = 1.0);
}

}  // namespace lamina::bindings
