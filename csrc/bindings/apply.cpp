// Function.apply: unwraps Tensors, runs `forward`, wraps the results, and records a Node where a
// gradient is wanted.
#include "bindings/common.h"
#include "bindings/graph.h"

namespace lamina::bindings {
namespace {

struct Names {
  PyObject* forward = PyUnicode_InternFromString("forward");
  PyObject* kernels_only = PyUnicode_InternFromString("kernels_only");
};
const Names& names() {
  static const Names& interned = *new Names;
  return interned;
}

// The positional arguments of `apply`, Tensors unwrapped.
struct Arguments {
  std::vector<PyObject*> stack;    // the context's place, the arguments, the keywords' values
  std::vector<PyObject*> tensors;  // borrowed
  py::object needs;                // tuple of bool
  bool recorded = false;
};

Arguments unwrap(PyObject* const* given, Py_ssize_t count, Py_ssize_t keywords) {
  Arguments result;
  result.stack.reserve(static_cast<size_t>(1 + count + keywords));
  result.stack.push_back(nullptr);
  result.needs = stolen(PyTuple_New(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    bool need = false;
    PyObject* value = given[i];
    if (is_tensor(value)) {
      need = grad_enabled && requires_grad(value);
      result.tensors.push_back(value);
      value = array_in(value);
    }
    result.stack.push_back(value);
    result.recorded |= need;
    PyTuple_SET_ITEM(result.needs.ptr(), i, Py_NewRef(need ? Py_True : Py_False));
  }
  for (Py_ssize_t i = 0; i < keywords; ++i) result.stack.push_back(given[count + i]);
  return result;
}

py::object new_context(const py::object& needs) {
  PyTypeObject* const type = graph.context.type();
  const py::object nothing = stolen(PyTuple_New(0));
  py::object context = stolen(type->tp_new(type, nothing.ptr(), nullptr));
  graph.context.set(context, ContextSlot::needs_input_grad, needs);
  graph.context.set(context, ContextSlot::saved, nothing);
  graph.context.set(context, ContextSlot::non_differentiable, nothing);
  return context;
}

py::object edges_of(PyObject* const* given, const py::object& needs) {
  const Py_ssize_t count = PyTuple_GET_SIZE(needs.ptr());
  py::object edges = stolen(PyTuple_New(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    const bool need = PyTuple_GET_ITEM(needs.ptr(), i) == Py_True;
    PyTuple_SET_ITEM(edges.ptr(), i, need ? new_edge(given[i]) : Py_NewRef(Py_None));
  }
  return edges;
}

py::tuple tuple_in(const py::object& context, ContextSlot slot) {
  return py::tuple(py::reinterpret_borrow<py::object>(graph.context.get(context, slot)));
}

bool contains(PyObject* tuple, PyObject* item) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i)
    if (PyTuple_GET_ITEM(tuple, i) == item) return true;
  return false;
}

void record(py::handle function, const py::object& context, const py::object& edges,
            std::vector<PyObject*> tensors, const std::vector<py::object>& outputs) {
  const py::tuple saved = tuple_in(context, ContextSlot::saved);
  const py::tuple marked = tuple_in(context, ContextSlot::non_differentiable);
  py::object descriptions = stolen(PyTuple_New(static_cast<Py_ssize_t>(outputs.size())));
  std::vector<PyObject*> all;  // results first: arguments go before them
  for (size_t i = 0; i < outputs.size(); ++i) {
    PyObject* const array = array_in(outputs[i]);
    PyTuple_SET_ITEM(descriptions.ptr(), static_cast<Py_ssize_t>(i),
                     output_description(array, !contains(marked.ptr(), array)).release().ptr());
    all.push_back(outputs[i].ptr());
  }
  all.insert(all.end(), tensors.begin(), tensors.end());
  const auto items = reinterpret_cast<PyTupleObject*>(saved.ptr())->ob_item;
  const py::object versions =
      version_counts(items, PyTuple_GET_SIZE(saved.ptr()), all.data(), std::ssize(all));
  const py::object node = new_node(function, context, edges, descriptions, versions);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto index = static_cast<Py_ssize_t>(i);
    if (PyTuple_GET_ITEM(PyTuple_GET_ITEM(descriptions.ptr(), index), 2) == Py_True)
      attach(outputs[i], node, index);
  }
}

// NumPy makes scalars of what it computes from arrays without dimensions.
py::object as_array(py::object result) {
  if (is_array(result.ptr())) return result;
  return py::handle(graph.numpy).attr("asarray")(result);
}

py::object wrapped(PyObject* result) {
  return wrap(as_array(py::reinterpret_borrow<py::object>(result)).release().ptr());
}

py::object run_forward(py::handle function, const py::object& context, Arguments& arguments,
                       Py_ssize_t count, PyObject* keywords) {
  const py::object forward = stolen(PyObject_GetAttr(function.ptr(), names().forward));
  const py::object quiet = stolen(PyObject_GetAttr(function.ptr(), names().kernels_only));
  Quiet no_warnings;  // Inf and NaN follow IEEE
  if (quiet.ptr() != Py_True) no_warnings.begin();
  arguments.stack[0] = context.ptr();
  return stolen(PyObject_Vectorcall(forward.ptr(), arguments.stack.data(),
                                    static_cast<size_t>(1 + count), keywords));
}

py::object apply_function(py::handle function, PyObject* const* given, Py_ssize_t count,
                          PyObject* keywords) {
  const Py_ssize_t keyword_count = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
  for (Py_ssize_t i = 0; i < keyword_count; ++i)
    if (is_tensor(given[count + i]))
      graph_attribute("_refuse_keyword")(function, py::handle(PyTuple_GET_ITEM(keywords, i)));
  Arguments arguments = unwrap(given, count, keyword_count);
  const py::object context = new_context(arguments.needs);
  py::object result = run_forward(function, context, arguments, count, keywords);
  const bool several = PyTuple_Check(result.ptr());
  if (arguments.tensors.empty()) return several ? result : as_array(std::move(result));
  std::vector<py::object> outputs;
  for (Py_ssize_t i = 0; i < (several ? PyTuple_GET_SIZE(result.ptr()) : 1); ++i) {
    outputs.push_back(wrapped(several ? PyTuple_GET_ITEM(result.ptr(), i) : result.ptr()));
    share_version(outputs.back(), arguments.tensors.data(), std::ssize(arguments.tensors));
  }
  if (arguments.recorded)
    record(function, context, edges_of(given, arguments.needs), arguments.tensors, outputs);
  if (!several) return std::move(outputs[0]);
  py::object tuple = stolen(PyTuple_New(std::ssize(outputs)));
  for (size_t i = 0; i < outputs.size(); ++i)
    PyTuple_SET_ITEM(tuple.ptr(), static_cast<Py_ssize_t>(i), outputs[i].release().ptr());
  return tuple;
}

PyObject* apply(PyObject*, PyObject* const* given, Py_ssize_t count, PyObject* keywords) {
  return python_result([&] { return apply_function(given[0], given + 1, count - 1, keywords); });
}

PyMethodDef methods[] = {
    {"apply", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&apply)),
     METH_FASTCALL | METH_KEYWORDS,
     "apply(function: typing.Any, *args: typing.Any, **kwargs: typing.Any) -> typing.Any\n\n"
     "Function.apply of a subclass"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

LAMINA_BINDINGS(apply) {
  if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
}

}  // namespace lamina::bindings
