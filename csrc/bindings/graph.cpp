#include "bindings/graph.h"

#include <structmember.h>

#include "bindings/common.h"
#include "bindings/numpy_array.h"

namespace lamina::bindings {

Py_ssize_t offset_of_slot(const py::handle& type, const char* name) {
  const py::object member = type.attr(name);
  if (!Py_IS_TYPE(member.ptr(), &PyMemberDescr_Type))
    throw std::logic_error(std::string("internal: no slot: ") + name);
  return reinterpret_cast<PyMemberDescrObject*>(member.ptr())->d_member->offset;
}

py::object wrap(PyObject* array) {
  py::object owned = stolen(array);
  py::object tensor = graph.tensor.create();
  graph.tensor.fill(tensor, TensorSlot::data, owned.release().ptr());
  for (TensorSlot slot :
       {TensorSlot::version, TensorSlot::grad, TensorSlot::hooks, TensorSlot::grad_fn})
    graph.tensor.set(tensor, slot, Py_None);
  graph.tensor.set(tensor, TensorSlot::requires_grad, Py_False);
  graph.tensor.fill(tensor, TensorSlot::index, PyLong_FromLong(0));  // and nothing packed
  return tensor;
}

bool is_array(PyObject* object) {
  if (PyObject_TypeCheck(object, py::detail::npy_api::get().PyArray_Type_)) return true;
  if (object == Py_None || PyCapsule_CheckExact(object)) return false;
  return graph_attribute("is_array")(py::handle(object)).cast<bool>();
}

static py::object base_of(PyObject* array) {
  if (PyObject_TypeCheck(array, py::detail::npy_api::get().PyArray_Type_)) {
    PyObject* const base = fields(array).base;
    return py::reinterpret_borrow<py::object>(base == nullptr ? Py_None : base);
  }
  return py::getattr(array, "base");
}

py::object buffer_of(PyObject* array) {
  py::object buffer = py::reinterpret_borrow<py::object>(array);
  for (;;) {
    py::object base = base_of(buffer.ptr());
    if (!is_array(base.ptr())) return buffer;
    buffer = std::move(base);
  }
}

PyObject* new_edge(py::handle tensor) {
  PyObject* const node = graph.tensor.get(tensor, TensorSlot::grad_fn);
  PyObject* const index = graph.tensor.get(tensor, TensorSlot::index);
  // A leaf has the index 0.
  return stolen(PyTuple_Pack(2, node == Py_None ? tensor.ptr() : node, index)).release().ptr();
}

static bool is_floating(py::handle dtype) {
  const char kind = py::detail::array_descriptor_proxy(dtype.ptr())->kind;
  if (kind == 'f') return true;
  return kind == 'V' && graph_attribute("is_floating")(dtype).cast<bool>();  // bfloat16?
}

py::object output_description(PyObject* array, bool differentiable) {
  const py::handle object(array);
  const py::object shape = object.attr("shape"), dtype = object.attr("dtype");
  const py::object library = is_plain_array(array) ? py::reinterpret_borrow<py::object>(graph.numpy)
                                                   : graph_attribute("module_of")(object);
  const py::bool_ wanted(differentiable && is_floating(dtype));
  return stolen(PyTuple_Pack(4, shape.ptr(), dtype.ptr(), wanted.ptr(), library.ptr()));
}

// The count of writes into the tensor's memory; begins when somebody asks.
static PyObject* writes_of(PyObject* tensor) {
  PyObject* const version = graph.tensor.get(tensor, TensorSlot::version);
  if (version != Py_None) return version;
  py::object begun = graph.version.create();
  graph.version.fill(begun, VersionSlot::count, PyLong_FromLong(0));
  graph.tensor.fill(tensor, TensorSlot::version, begun.ptr());
  return begun.release().ptr();
}

static PyObject* owner_of(PyObject* array, PyObject* const* tensors, Py_ssize_t count) {
  for (Py_ssize_t i = count; i-- > 0;)
    if (array_shown_by(tensors[i]) == array) return tensors[i];
  if (!is_array(array)) return nullptr;
  const py::object buffer = buffer_of(array);
  for (Py_ssize_t i = count; i-- > 0;)
    if (buffer_of(array_shown_by(tensors[i])).is(buffer)) return tensors[i];
  return nullptr;
}

py::object version_counts(PyObject* const* kept, Py_ssize_t count, PyObject* const* tensors,
                          Py_ssize_t tensor_count) {
  std::vector<PyObject*> versions;
  for (Py_ssize_t i = 0; i < count; ++i)
    if (PyObject* const owner = owner_of(kept[i], tensors, tensor_count); owner != nullptr)
      versions.push_back(writes_of(owner));
  py::object counts = stolen(PyTuple_New(2 * static_cast<Py_ssize_t>(versions.size())));
  for (size_t i = 0; i < versions.size(); ++i) {
    const auto place = 2 * static_cast<Py_ssize_t>(i);
    PyTuple_SET_ITEM(counts.ptr(), place, Py_NewRef(versions[i]));
    PyTuple_SET_ITEM(counts.ptr(), place + 1,
                     Py_NewRef(graph.version.get(versions[i], VersionSlot::count)));
  }
  return counts;
}

void share_version(py::handle tensor, PyObject* const* others, Py_ssize_t count) {
  const py::object buffer = buffer_of(array_shown_by(tensor));
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!buffer_of(array_shown_by(others[i])).is(buffer)) continue;
    graph.tensor.set(tensor, TensorSlot::version, writes_of(others[i]));
    return;
  }
}

py::object new_node(py::handle function, py::handle ctx, const py::object& edges,
                    const py::object& outputs, const py::object& versions) {
  py::object node = graph.node.create();
  graph.node.set(node, NodeSlot::function, function);
  graph.node.set(node, NodeSlot::ctx, ctx);
  graph.node.set(node, NodeSlot::edges, edges);
  graph.node.set(node, NodeSlot::outputs, outputs);
  graph.node.set(node, NodeSlot::versions, versions);
  graph.node.set(node, NodeSlot::hooks, Py_None);
  return node;
}

void attach(py::handle tensor, const py::object& node, Py_ssize_t index) {
  graph.tensor.set(tensor, TensorSlot::grad_fn, node);
  graph.tensor.fill(tensor, TensorSlot::index, PyLong_FromSsize_t(index));
  graph.tensor.set(tensor, TensorSlot::requires_grad, Py_True);
}

void Quiet::begin() {
  if (state_) return;
  py::object state = py::handle(graph.numpy).attr("errstate")(py::arg("all") = "ignore");
  state.attr("__enter__")();
  state_ = std::move(state);
}

Quiet::~Quiet() {
  if (!state_) return;
  PyObject *type, *value, *trace;  // of an exception on its way
  PyErr_Fetch(&type, &value, &trace);
  try {
    state_.attr("__exit__")(py::none(), py::none(), py::none());
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("lamina");
  }
  PyErr_Restore(type, value, trace);
}

LAMINA_BINDINGS(graph) {
  module.def(
      "set_graph",
      [](const py::object& autograd) {
        graph.tensor.read(autograd.attr("Tensor"),
                          {"_data", "_version", "_grad", "_hooks", "grad_fn", "_requires_grad",
                           "_index", "_packed"});
        graph.node.read(autograd.attr("Node"),
                        {"function", "ctx", "edges", "outputs", "versions", "hooks"});
        graph.version.read(autograd.attr("Version"), {"count"});
        graph.context.read(autograd.attr("Context"),
                           {"needs_input_grad", "saved", "non_differentiable"});
        graph.numpy = py::module_::import("numpy").release().ptr();
        graph.module = autograd.inc_ref().ptr();
      },
      py::arg("autograd"));
  module.def("grad_enabled", [] { return grad_enabled; });
  module.def("set_grad_enabled", [](bool enabled) { grad_enabled = enabled; }, py::arg("enabled"));
}

}  // namespace lamina::bindings
