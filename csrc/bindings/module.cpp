// The extension module lamina._C: runtime settings and introspection, and every family's bindings.
#include "bindings/calls.h"
#include "bindings/common.h"
#include "core/threads.h"
#include "ops/bf16_unit.h"
#include "ops/precision.h"

namespace lamina::bindings {

static BinderNode* first_binder = nullptr;

BinderNode::BinderNode(Binder binder_function) : binder(binder_function), next(first_binder) {
  first_binder = this;
}

namespace {

py::dict plan_as_dict(const ops::Plan& plan) {
  py::list refusals;
  for (const ops::Refusal& refusal : plan.refusals)
    refusals.append(py::make_tuple(refusal.algo, refusal.reason));
  py::dict result;
  result["op"] = plan.op;
  result["pass_"] = plan.pass;
  result["backend"] = plan.backend;
  result["algo"] = plan.algo;
  result["isa"] = plan.isa;
  result["workspace_bytes"] = plan.workspace_bytes;
  result["precision"] = plan.precision;
  result["chosen_by"] = plan.chosen_by;
  result["refusals"] = py::tuple(refusals);
  return result;
}

py::list kernel_list() {
  py::list result;
  for (const ops::Kernel& kernel : ops::registry())
    result.append(py::make_tuple(kernel.backend, kernel.op, kernel.pass, kernel.algo));
  return result;
}

}  // namespace

PYBIND11_MODULE(_C, module, py::mod_gil_not_used()) {
  module.doc() = "Lamina's compiled kernels. Use lamina.functional instead.";
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const TypeError& error) {
      py::set_error(PyExc_TypeError, error.what());
    }
  });
  module.def("num_threads", &num_threads);
  module.def("set_num_threads", &set_num_threads, py::arg("count"));
  module.def("isa", [] { return ops::isa_name(ops::isa()); });
  module.def("bf16_unit", &ops::bf16_unit_name,
             "What multiplies bfloat16: 'amx', 'amx-model', 'avx512-bf16' or nothing");
  module.def("compiled_isas", &ops::compiled_isas);
  module.def("kernels", &kernel_list, "(backend, op, pass, algo) of every registered kernel");
  module.def("current_backend", [] { return ops::current_backend(); });
  module.def("set_current_backend", &ops::set_current_backend, py::arg("name"));
  module.def("float32_precision",
             [] { return std::string(ops::precision_name(ops::float32_precision())); });
  module.def(
      "set_float32_precision",
      [](const std::string& name) { ops::set_float32_precision(ops::precision_of(name)); },
      py::arg("precision"));
  module.def("last_plan", [] { return plan_as_dict(ops::last_plan()); });
  module.def("register_backend", [](const py::capsule& backend) {
    ops::register_backend(*backend.get_pointer<const ops::Backend>());
  });
  // Before the functions whose signatures name it.
  py::class_<Call, std::shared_ptr<Call>>(module, "Call", "A checked call without its operands");
  for (BinderNode* node = first_binder; node; node = node->next) node->binder(module);
}

}  // namespace lamina::bindings
