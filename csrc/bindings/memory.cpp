// Arrays that Python asks for or asks about many times a call. Plain C functions: a fifth of the
// cost of a bound one.
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "core/buffers.h"

namespace lamina::bindings {
namespace {

PyObject* is_ready_array(PyObject*, PyObject* object) {
  return PyBool_FromLong(is_plain_array(object) && is_ready(object));
}

PyObject* array_or_none(PyObject* array) {
  if (array == nullptr) Py_RETURN_NONE;
  return array;
}

PyObject* empty(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
  constexpr Py_ssize_t kMaxRank = 32;
  PyTypeObject* const dtype_type = py::detail::npy_api::get().PyArrayDescr_Type_;
  if (count != 2 || !PyTuple_CheckExact(arguments[0]) ||
      !PyObject_TypeCheck(arguments[1], dtype_type))
    Py_RETURN_NONE;
  const Py_ssize_t rank = PyTuple_GET_SIZE(arguments[0]);
  if (rank > kMaxRank) Py_RETURN_NONE;
  py::ssize_t shape[kMaxRank];
  for (Py_ssize_t axis = 0; axis < rank; ++axis) {
    PyObject* const extent = PyTuple_GET_ITEM(arguments[0], axis);
    if (!PyLong_CheckExact(extent)) Py_RETURN_NONE;
    shape[axis] = PyLong_AsSsize_t(extent);
    if (shape[axis] == -1 && PyErr_Occurred()) PyErr_Clear();  // -1 is refused below
  }
  const auto* descr = py::detail::array_descriptor_proxy(arguments[1]);
  for (ElementType type : {ElementType::f32, ElementType::f64, ElementType::i64, ElementType::u8})
    if (descr->type_num == type_number(type) && descr->byteorder != '>')
      return array_or_none(new_array(shape, static_cast<int>(rank), type));
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"is_ready", &is_ready_array, METH_O,
     "is_ready(x: typing.Any) -> bool\n\n"
     "Whether kernels read x as it is: float32 or float64 of NumPy, aligned, in C order"},
    {"empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&empty)), METH_FASTCALL,
     "empty(shape: tuple[int, ...], dtype: typing.Any) -> typing.Any\n\n"
     "A new array, its memory recycled; None for what lamina.arrays.empty has to look at"},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

LAMINA_BINDINGS(memory) {
  if (PyModule_AddFunctions(module.ptr(), methods) != 0) throw py::error_already_set();
  module.def("idle_bytes", &idle_bytes);
  module.def("idle_limit", &idle_limit);
  module.def("set_idle_limit", &set_idle_limit, py::arg("bytes"));
}

}  // namespace lamina::bindings
