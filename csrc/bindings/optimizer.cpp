#include "ops/optimizer.h"

#include <algorithm>

#include "bindings/common.h"
#include "bindings/numpy_array.h"

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

bool is_update_ready(PyObject* param, PyObject* grad, const std::vector<PyObject*>& states) {
  const auto ready = [&](PyObject* array) {
    return is_plain_array(array) && is_ready(array) &&
           element_type_of(array) == element_type_of(param);
  };
  return ready(param) && ready(grad) && std::all_of(states.begin(), states.end(), ready);
}

Array loaded(PyObject* array) {
  Array result;
  result.load(array);
  return result;
}

// Of the updates (kind, param, grad, states, coefficients, decay, keep), runs those whose arrays
// are ready; the indices of the others.
std::vector<size_t> optimizer_steps(const std::vector<py::tuple>& updates) {
  std::vector<size_t> others;
  std::vector<PyObject*> arrays;
  for (size_t i = 0; i < updates.size(); ++i) {
    const auto item = [&](Py_ssize_t index) { return PyTuple_GET_ITEM(updates[i].ptr(), index); };
    const py::sequence states = py::reinterpret_borrow<py::sequence>(item(3));
    arrays.clear();
    std::vector<Array> loaded_states;
    for (const auto& state : states) arrays.push_back(py::object(state).ptr());
    if (!is_update_ready(item(1), item(2), arrays)) {
      others.push_back(i);
      continue;
    }
    const Array param = loaded(item(1));
    if (param.size() == 0) continue;
    for (PyObject* state : arrays) loaded_states.push_back(loaded(state));
    optimizer_step(py::handle(item(0)).cast<std::string>(), param, loaded(item(2)), loaded_states,
                   py::handle(item(4)).cast<std::vector<double>>(),
                   py::handle(item(5)).cast<double>(), py::handle(item(6)).cast<double>());
  }
  return others;
}

}  // namespace

LAMINA_BINDINGS(optimizer) {
  module.def("optimizer_steps", &optimizer_steps,
             "Runs the updates whose arrays are ready; the indices of the others",
             py::arg("updates"));
  module.def("optimizer_step", &optimizer_step, py::arg("kind"), py::arg("param"), py::arg("grad"),
             py::arg("states"), py::arg("coefficients"), py::arg("decay") = 0.0,
             py::arg("keep") = 1.0);
}

}  // namespace lamina::bindings
