#include "bindings/calls.h"

#include <structmember.h>

#include <cstring>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "bindings/common.h"
#include "bindings/numpy_array.h"

namespace lamina::bindings {
namespace {

// ---- Tensors, which Python defines: where their slots are

enum Slot { kData, kVersion, kGrad, kHooks, kGradFn, kRequiresGrad, kIndex, kSlots };
constexpr const char* kSlotNames[] = {"_data",   "_version",       "_grad", "_hooks",
                                      "grad_fn", "_requires_grad", "_index"};
PyTypeObject* tensor_type = nullptr;
Py_ssize_t slot_offset[kSlots];
thread_local bool grad_enabled = true;

PyObject*& slot(PyObject* tensor, Slot name) {
  return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(tensor) + slot_offset[name]);
}

void set_tensor_type(const py::type& type) {
  for (int i = 0; i < kSlots; ++i) {
    const py::object member = type.attr(kSlotNames[i]);
    if (!Py_IS_TYPE(member.ptr(), &PyMemberDescr_Type))
      throw std::logic_error(std::string("internal: no slot of a Tensor: ") + kSlotNames[i]);
    slot_offset[i] = reinterpret_cast<PyMemberDescrObject*>(member.ptr())->d_member->offset;
  }
  tensor_type = reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
}

// As Tensor._wrap does. Takes the reference to the array.
PyObject* wrap(PyObject* array) {
  PyObject* const tensor = tensor_type->tp_alloc(tensor_type, 0);
  if (tensor == nullptr) {
    Py_DECREF(array);
    return nullptr;
  }
  slot(tensor, kData) = array;
  for (Slot name : {kVersion, kGrad, kHooks, kGradFn}) slot(tensor, name) = Py_NewRef(Py_None);
  slot(tensor, kRequiresGrad) = Py_NewRef(Py_False);
  slot(tensor, kIndex) = PyLong_FromLong(0);
  return tensor;
}

// ---- What tells two calls apart: shapes and dtypes of the operands, values of the options

class Key {
 public:
  void array(PyObject* array) {
    const py::detail::PyArray_Proxy& proxy = fields(array);
    put('a'), put(static_cast<char>(element_type_of(array))), put(static_cast<char>(proxy.nd));
    put(proxy.dimensions, sizeof(py::ssize_t) * static_cast<size_t>(proxy.nd));
  }
  void none() { put('n'); }

  // False for a kind of value that cannot be part of a key.
  bool value(PyObject* object) {
    if (object == Py_None) return none(), fits_;
    if (PyLong_CheckExact(object)) return put('i'), integer(object);
    if (PyBool_Check(object)) return put(object == Py_True ? 't' : 'f'), fits_;
    if (PyFloat_CheckExact(object)) {
      const double number = PyFloat_AS_DOUBLE(object);
      put('d'), put(&number, sizeof number);
      return fits_;
    }
    if (PyUnicode_CheckExact(object)) {
      Py_ssize_t length = 0;
      const char* const text = PyUnicode_AsUTF8AndSize(object, &length);
      if (text == nullptr) return PyErr_Clear(), false;
      put('s'), put(&length, sizeof length), put(text, static_cast<size_t>(length));
      return fits_;
    }
    if (PyTuple_CheckExact(object)) {
      const Py_ssize_t length = PyTuple_GET_SIZE(object);
      put('('), put(&length, sizeof length);
      for (Py_ssize_t i = 0; i < length && fits_; ++i)
        if (!value(PyTuple_GET_ITEM(object, i))) return false;
      return fits_;
    }
    return false;
  }

  std::string_view text() const { return {bytes_, size_}; }

 private:
  bool integer(PyObject* object) {
    const long long number = PyLong_AsLongLong(object);
    if (number == -1 && PyErr_Occurred()) return PyErr_Clear(), false;
    put(&number, sizeof number);
    return fits_;
  }
  void put(char byte) { put(&byte, 1); }
  void put(const void* data, size_t size) {
    fits_ = fits_ && size <= sizeof bytes_ - size_;
    if (!fits_) return;
    std::memcpy(bytes_ + size_, data, size);
    size_ += size;
  }

  char bytes_[512];
  size_t size_ = 0;
  bool fits_ = true;
};

struct Hash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

// The calls of one function.
struct Calls {
  static constexpr size_t kMost = 4096;  // then it starts afresh

  struct Known {
    Call call;
    py::tuple record;  // what `apply` takes after the operands
  };

  Py_ssize_t operands;
  py::object apply;  // of the Function
  std::mutex mutex;
  std::unordered_map<std::string, std::shared_ptr<const Known>, Hash, std::equal_to<>> table;

  std::shared_ptr<const Known> find(std::string_view key) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = table.find(key);
    return found == table.end() ? nullptr : found->second;
  }
  void insert(std::string_view key, std::shared_ptr<const Known> known) {
    decltype(table) dropped;  // dies after the lock: its tuples may run code of Python
    const std::lock_guard<std::mutex> lock(mutex);
    if (table.size() >= kMost) table.swap(dropped);
    table.emplace(std::string(key), std::move(known));
  }
};

struct Given {
  Key key;
  PyObject* arrays[kMaxOperands];
  bool tensors = false, recorded = false;
};

// False for a call that Python must look at: other kinds of arrays, options that are no key.
bool read_arguments(const Calls& calls, PyObject* const* arguments, Py_ssize_t count,
                    Given& given) {
  if (count < calls.operands) return false;
  for (Py_ssize_t i = 0; i < calls.operands; ++i) {
    PyObject* object = arguments[i];
    given.arrays[i] = nullptr;
    if (object == Py_None) {
      given.key.none();
      continue;
    }
    if (PyObject_TypeCheck(object, tensor_type)) {
      given.tensors = true;
      if (grad_enabled && slot(object, kRequiresGrad) == Py_True) given.recorded = true;
      object = slot(object, kData);
    }
    if (object == nullptr || !is_plain_array(object) || !is_ready(object)) return false;
    given.key.array(object);
    given.arrays[i] = object;
  }
  for (Py_ssize_t i = calls.operands; i < count; ++i)
    if (!given.key.value(arguments[i])) return false;
  return given.arrays[0] != nullptr;
}

Calls& calls_of(PyObject* capsule) {
  return *static_cast<Calls*>(PyCapsule_GetPointer(capsule, nullptr));
}

// The Function's first result.
PyObject* record(const Calls& calls, const Calls::Known& known, PyObject* const* arguments) {
  PyObject* stack[kMaxOperands + 16];
  Py_ssize_t count = 0;
  for (; count < calls.operands; ++count) stack[count] = arguments[count];
  for (py::handle item : known.record) stack[count++] = item.ptr();
  PyObject* const result =
      PyObject_Vectorcall(calls.apply.ptr(), stack, static_cast<size_t>(count), nullptr);
  if (result == nullptr || !PyTuple_CheckExact(result)) return result;
  PyObject* const first = Py_NewRef(PyTuple_GET_ITEM(result, 0));
  Py_DECREF(result);
  return first;
}

// The result, or None for a call that is not known.
PyObject* run_known(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  Calls& calls = calls_of(self);
  Given given;
  if (!read_arguments(calls, arguments, count, given)) Py_RETURN_NONE;
  const std::shared_ptr<const Calls::Known> known = calls.find(given.key.text());
  if (known == nullptr) Py_RETURN_NONE;
  if (given.recorded) return record(calls, *known, arguments);
  const Call& call = known->call;
  PyObject* const result = new_array(call.shape.data(), static_cast<int>(call.shape.size()),
                                     element_type_of(given.arrays[0]));
  if (result == nullptr) Py_RETURN_NONE;
  try {
    Operands operands;
    for (Py_ssize_t i = 0; i < calls.operands; ++i)
      if (given.arrays[i] != nullptr) operands[i].emplace().load(given.arrays[i]);
    Array target;
    target.load(result);
    call.run(operands, target);
  } catch (...) {  // whatever it is: the long way says it in the words of the function
    Py_DECREF(result);
    PyErr_Clear();
    Py_RETURN_NONE;
  }
  return given.tensors ? wrap(result) : result;
}

PyMethodDef run_method = {"known_call",
                          reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run_known)),
                          METH_FASTCALL, nullptr};

// (run, remember) for a function whose first arguments are `operands` arrays, Tensors or None.
py::tuple make_calls(int operands, const py::object& apply) {
  expect(operands >= 1 && operands <= kMaxOperands, "operands", "are too many");
  auto* const calls = new Calls{operands, apply, {}, {}};  // as long as the function: for ever
  const py::capsule self(calls);
  auto run = py::reinterpret_steal<py::object>(PyCFunction_New(&run_method, self.ptr()));
  auto remember = py::cpp_function(
      [calls](const py::tuple& arguments, Call call, py::tuple record) {
        Given given;
        const auto items = reinterpret_cast<PyTupleObject*>(arguments.ptr())->ob_item;
        const auto count = static_cast<Py_ssize_t>(arguments.size());
        expect(record.size() <= 16, "record", "is too long");
        if (read_arguments(*calls, items, count, given))
          calls->insert(given.key.text(), std::make_shared<const Calls::Known>(
                                              Calls::Known{std::move(call), std::move(record)}));
      },
      py::arg("arguments"), py::arg("call"), py::arg("record"));
  return py::make_tuple(run, remember);
}

}  // namespace

LAMINA_BINDINGS(calls) {
  module.def("calls", &make_calls, py::arg("operands"), py::arg("apply"));
  module.def("set_tensor_type", &set_tensor_type, py::arg("type"));
  module.def("grad_enabled", [] { return grad_enabled; });
  module.def("set_grad_enabled", [](bool enabled) { grad_enabled = enabled; }, py::arg("enabled"));
}

}  // namespace lamina::bindings
