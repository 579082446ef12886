// The graph that backward walks, as C++ sees it. Tensor, Node, Version and Context are classes of
// Python with slots (tensor.py, autograd.py say what they mean); here is where the slots are, and
// what records a call in them without running code of Python.
#pragma once

#include "bindings/array.h"

namespace lamina::bindings {

// A class of Python whose objects are made, read and filled without a call.
template <class Slot, int kSlots>
class SlottedClass {
 public:
  // Throws std::logic_error for a name that is no slot.
  void read(const py::handle& type, const char* const (&names)[kSlots]) {
    for (int i = 0; i < kSlots; ++i) offset_[i] = slot_offset(type, names[i]);
    type_ = reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
  }
  PyTypeObject* type() const { return type_; }
  bool holds(PyObject* object) const { return PyObject_TypeCheck(object, type_); }
  // Its slots are empty: all of them must be filled.
  py::object create() const {
    PyObject* const object = type_->tp_alloc(type_, 0);
    if (object == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(object);
  }
  PyObject* get(py::handle object, Slot slot) const { return at(object, slot); }  // borrowed
  // Takes the reference to the value.
  void fill(py::handle object, Slot slot, PyObject* value) const {
    PyObject*& place = at(object, slot);
    PyObject* const before = place;
    place = value;
    Py_XDECREF(before);
  }
  void set(py::handle object, Slot slot, py::handle value) const {
    fill(object, slot, value.inc_ref().ptr());
  }

 private:
  static Py_ssize_t slot_offset(const py::handle& type, const char* name);
  PyObject*& at(py::handle object, Slot slot) const {
    char* const base = reinterpret_cast<char*>(object.ptr());
    return *reinterpret_cast<PyObject**>(base + offset_[static_cast<int>(slot)]);
  }

  PyTypeObject* type_ = nullptr;
  Py_ssize_t offset_[kSlots] = {};
};

Py_ssize_t offset_of_slot(const py::handle& type, const char* name);
template <class Slot, int kSlots>
Py_ssize_t SlottedClass<Slot, kSlots>::slot_offset(const py::handle& type, const char* name) {
  return offset_of_slot(type, name);
}

enum class TensorSlot { data, version, grad, hooks, grad_fn, requires_grad, index, packed };
enum class NodeSlot { function, ctx, edges, outputs, versions, hooks };
enum class VersionSlot { count };
enum class ContextSlot { needs_input_grad, saved, non_differentiable };

struct GraphClasses {
  SlottedClass<TensorSlot, 8> tensor;
  SlottedClass<NodeSlot, 6> node;
  SlottedClass<VersionSlot, 1> version;
  SlottedClass<ContextSlot, 3> context;
  PyObject* module = nullptr;  // lamina.autograd
  PyObject* numpy = nullptr;
};
inline GraphClasses graph;

// A function or class of lamina.autograd, for what is rare.
inline py::object graph_attribute(const char* name) {
  return py::handle(graph.module).attr(name);
}

// Whether calls on this thread are recorded.
inline thread_local bool grad_enabled = true;

inline bool is_tensor(PyObject* object) {
  return graph.tensor.holds(object);
}
// The array, for its description or its address: nobody reads or writes elements through it.
inline PyObject* array_shown_by(py::handle tensor) {
  return graph.tensor.get(tensor, TensorSlot::data);
}
// Frees filters that were packed from the array (bindings/filter_store.h).
inline void forget_packed(py::handle tensor) {
  PyObject* const packed = graph.tensor.get(tensor, TensorSlot::packed);
  if (packed != nullptr && packed != Py_None) graph.tensor.set(tensor, TensorSlot::packed, Py_None);
}
// The array, for any use. Whoever lets go of the GIL meanwhile holds a reference.
inline PyObject* array_in(py::handle tensor) {
  forget_packed(tensor);
  return array_shown_by(tensor);
}
inline bool requires_grad(py::handle tensor) {
  return graph.tensor.get(tensor, TensorSlot::requires_grad) == Py_True;
}

// A Tensor around an array, as Tensor._wrap makes it. Takes the reference to the array.
py::object wrap(PyObject* array);

// An array of NumPy, CuPy or what stands in for it.
bool is_array(PyObject* object);
py::object buffer_of(PyObject* array);  // the array that owns the memory which the array shows

// (source, output index) of what made the tensor.
PyObject* new_edge(py::handle tensor);
// What a Node says of one output: (shape, dtype, differentiable, array library).
py::object output_description(PyObject* array, bool differentiable);
// The writes into arrays kept for backward so far: (Version, count, Version, count, ...) of those
// that show the memory of one of the tensors. A later tensor goes before an earlier one.
py::object version_counts(PyObject* const* kept, Py_ssize_t count, PyObject* const* tensors,
                          Py_ssize_t tensor_count);
// Counts writes together with the first of the tensors whose memory this one shows, if any.
void share_version(py::handle tensor, PyObject* const* others, Py_ssize_t count);

// The edges, outputs and versions are tuples.
py::object new_node(py::handle function, py::handle ctx, const py::object& edges,
                    const py::object& outputs, const py::object& versions);
// Makes the tensor an output of the node.
void attach(py::handle tensor, const py::object& node, Py_ssize_t index);

// Keeps NumPy from warning of what IEEE arithmetic defines, from `begin` on.
class Quiet {
 public:
  Quiet() = default;
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;
  ~Quiet();
  void begin();

 private:
  py::object state_;
};

inline py::object stolen(PyObject* object) {
  if (object == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(object);
}

// What a C function of Python returns for the body: its exceptions become Python's.
template <class Body>
PyObject* python_result(Body&& body) {
  try {
    return body().release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

}  // namespace lamina::bindings
