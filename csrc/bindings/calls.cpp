#include "bindings/calls.h"

#include <cstring>
#include <mutex>
#include <span>
#include <string_view>
#include <unordered_map>

#include "bindings/common.h"
#include "bindings/filter_store.h"
#include "bindings/graph.h"
#include "bindings/numpy_array.h"

namespace lamina::bindings {
namespace {

// ---- What tells two calls apart: shapes and dtypes of the operands, values of the options

class Key {
 public:
  void array(PyObject* array) {
    const py::detail::PyArray_Proxy& proxy = fields(array);
    put('a'), put(static_cast<char>(element_type_of(array))), put(static_cast<char>(proxy.nd));
    put(proxy.dimensions, sizeof(py::ssize_t) * static_cast<size_t>(proxy.nd));
  }
  void none() { put('n'); }
  void number() { put('#'); }

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

// A call that was checked, and what it says of its operands and result.
struct Known {
  Call call;
  py::tuple record;   // what `apply` takes after the operands
  py::tuple outputs;  // of the node
  ElementType type;
  std::vector<py::ssize_t> shapes[kMaxOperands];
};

// The calls of one function.
struct Calls {
  static constexpr size_t kMost = 4096;  // then it starts afresh

  Py_ssize_t operands;
  bool numbers;         // whether floats and integers may be operands
  py::object function;  // the Function
  py::object apply;
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
  py::object numbers[kMaxOperands];  // arrays made of numbers
  // Bits of operands: those that are Tensors, and those that want a gradient.
  unsigned tensors = 0, recorded = 0;

  // What a recorded call keeps of operands and result.
  unsigned kept(const Call& call) const {
    unsigned bits = call.keeps;
    for (int i = 0; i < kMaxOperands; ++i)
      if ((recorded >> i & 1) != 0) bits |= call.keeps_for[i];
    return bits;
  }
};

// Numbers become arrays of no dimension, of the dtype of the arrays beside them. False where that
// is not floating, or for a number that no float can hold.
bool make_numbers(const Calls& calls, PyObject* const* arguments, Given& given) {
  ElementType type = ElementType::other;
  for (PyObject* array : std::span(given.arrays, static_cast<size_t>(calls.operands)))
    if (array != nullptr) type = element_type_of(array);
  if (type != ElementType::f32 && type != ElementType::f64) return false;
  for (Py_ssize_t i = 0; i < calls.operands; ++i) {
    if (given.arrays[i] != nullptr || arguments[i] == Py_None) continue;
    const double number = PyFloat_AsDouble(arguments[i]);
    if (number == -1 && PyErr_Occurred()) return PyErr_Clear(), false;
    given.numbers[i] = py::reinterpret_steal<py::object>(new_array(nullptr, 0, type));
    if (!given.numbers[i]) return false;
    given.arrays[i] = given.numbers[i].ptr();
    void* const data = fields(given.arrays[i]).data;
    if (type == ElementType::f64)
      *static_cast<double*>(data) = number;
    else
      *static_cast<float*>(data) = static_cast<float>(number);
  }
  return true;
}

// False for a call that Python must look at: other kinds of arrays, options that are no key.
bool read_arguments(const Calls& calls, PyObject* const* arguments, Py_ssize_t count,
                    Given& given) {
  if (count < calls.operands) return false;
  bool numbers = false;
  for (Py_ssize_t i = 0; i < calls.operands; ++i) {
    PyObject* object = arguments[i];
    given.arrays[i] = nullptr;
    if (object == Py_None) {
      given.key.none();
      continue;
    }
    if (is_tensor(object)) {
      given.tensors |= 1U << i;
      if (grad_enabled && requires_grad(object)) given.recorded |= 1U << i;
      object = array_shown_by(object);
    }
    if (calls.numbers && (PyFloat_CheckExact(object) || PyLong_CheckExact(object))) {
      given.key.number();
      numbers = true;
      continue;
    }
    if (!is_plain_array(object) || !is_operand(object)) return false;
    given.key.array(object);
    given.arrays[i] = object;
  }
  if (numbers && !make_numbers(calls, arguments, given)) return false;
  for (Py_ssize_t i = calls.operands; i < count; ++i)
    if (!given.key.value(arguments[i])) return false;
  return given.arrays[0] != nullptr;
}

// ---- Recorded calls

// The context of a Node. It refers to plain arrays only, so that it is part of no cycle.
struct Recorded {
  PyObject_HEAD std::shared_ptr<const Known> known;
  unsigned wanted;                   // bits of operands
  PyObject* operands[kMaxOperands];  // null where not kept, as all below
  PyObject* result;
  PyObject* extras[kMaxExtras];

  template <class Visit>
  void each(Visit visit) {
    for (PyObject*& array : operands) visit(array);
    visit(result);
    for (PyObject*& array : extras) visit(array);
  }
};

void free_recorded(PyObject* self) {
  auto* const recorded = reinterpret_cast<Recorded*>(self);
  recorded->each([](PyObject*& array) { Py_CLEAR(array); });
  recorded->known.~shared_ptr();
  PyTypeObject* const type = Py_TYPE(self);
  PyObject_Free(self);
  Py_DECREF(type);
}

// As Context.saved: the arrays that are kept.
PyObject* saved_by(PyObject* self, void*) {
  PyObject* const list = PyList_New(0);
  if (list == nullptr) return nullptr;
  reinterpret_cast<Recorded*>(self)->each([list](PyObject* array) {
    if (array != nullptr && PyList_Append(list, array) != 0) PyErr_Clear();
  });
  PyObject* const tuple = PyList_AsTuple(list);
  Py_DECREF(list);
  return tuple;
}

PyGetSetDef recorded_members[] = {{"saved", &saved_by, nullptr, "The arrays kept", nullptr},
                                  {nullptr, nullptr, nullptr, nullptr, nullptr}};
PyType_Slot recorded_slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(&free_recorded)},
    {Py_tp_getset, recorded_members},
    {0, nullptr},
};
PyType_Spec recorded_spec = {"lamina._C.RecordedCall", sizeof(Recorded), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                             recorded_slots};

PyTypeObject* recorded_type() {
  static auto* const type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&recorded_spec));
  return type;
}

py::object new_context(const std::shared_ptr<const Known>& known, const Given& given,
                       PyObject* result, const Extras& extras, Py_ssize_t operands) {
  auto* const recorded = PyObject_New(Recorded, recorded_type());
  if (recorded == nullptr) throw py::error_already_set();
  new (&recorded->known) std::shared_ptr<const Known>(known);
  recorded->wanted = given.recorded;
  recorded->each([](PyObject*& array) { array = nullptr; });
  const unsigned keeps = given.kept(known->call);
  for (Py_ssize_t i = 0; i < operands; ++i)
    if ((keeps >> i & 1) != 0) recorded->operands[i] = Py_XNewRef(given.arrays[i]);
  if ((keeps & kResult) != 0) recorded->result = Py_NewRef(result);
  for (int i = 0; i < kMaxExtras; ++i) recorded->extras[i] = Py_XNewRef(extras[i].object());
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(recorded));
}

// The result as an output of a new Node.
py::object record_call(const Calls& calls, const std::shared_ptr<const Known>& known,
                       const Given& given, PyObject* const* arguments, py::object result,
                       const Extras& extras) {
  const py::object context = new_context(known, given, result.ptr(), extras, calls.operands);
  py::object tensor = wrap(result.release().ptr());
  const py::object edges = stolen(PyTuple_New(calls.operands));
  PyObject *tensors[kMaxOperands + 1] = {tensor.ptr()}, *kept[kMaxOperands + 1];
  Py_ssize_t tensor_count = 1, kept_count = 0;
  const unsigned keeps = given.kept(known->call);
  for (Py_ssize_t i = 0; i < calls.operands; ++i) {
    if (given.arrays[i] != nullptr && is_tensor(arguments[i]))
      tensors[tensor_count++] = arguments[i];
    if (given.arrays[i] != nullptr && (keeps >> i & 1) != 0) kept[kept_count++] = given.arrays[i];
    const bool wanted = (given.recorded >> i & 1) != 0;
    PyTuple_SET_ITEM(edges.ptr(), i, wanted ? new_edge(arguments[i]) : Py_NewRef(Py_None));
  }
  if ((keeps & kResult) != 0) kept[kept_count++] = array_shown_by(tensor);
  const py::object versions = version_counts(kept, kept_count, tensors, tensor_count);
  attach(tensor, new_node(calls.function, context, edges, known->outputs, versions), 0);
  return tensor;
}

// ---- A known call

// The Function's first result.
PyObject* apply(const Calls& calls, const Known& known, PyObject* const* arguments) {
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

Calls& calls_of(PyObject* capsule) {
  return *static_cast<Calls*>(PyCapsule_GetPointer(capsule, nullptr));
}

// The result, or None for a call that is not known.
PyObject* run_known(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  Calls& calls = calls_of(self);
  Given given;
  if (!read_arguments(calls, arguments, count, given)) Py_RETURN_NONE;
  const std::shared_ptr<const Known> known = calls.find(given.key.text());
  if (known == nullptr) Py_RETURN_NONE;
  const Call& call = known->call;
  given.tensors &= call.differentiable, given.recorded &= call.differentiable;
  const bool packs = call.packs >= 0 && given.recorded == 0 && is_tensor(arguments[call.packs]);
  for (Py_ssize_t i = 0; i < calls.operands; ++i)
    if ((given.tensors >> i & 1) != 0 && !(packs && i == call.packs)) forget_packed(arguments[i]);
  const bool compiled = call.gradient && (given.recorded & ~call.compiled) == 0;
  if (given.recorded != 0 && !compiled) return apply(calls, *known, arguments);
  auto result = py::reinterpret_steal<py::object>(
      new_array(call.shape.data(), static_cast<int>(call.shape.size()), known->type));
  if (!result) Py_RETURN_NONE;
  try {
    std::optional<FilterStore> filters;
    if (packs) filters.emplace(arguments[call.packs]);
    Operands operands;
    for (Py_ssize_t i = 0; i < calls.operands; ++i)
      if (given.arrays[i] != nullptr) operands[i].emplace().load(given.arrays[i]);
    if (packs) operands[call.packs]->set_filters(&*filters);
    Array target;
    target.load(result);
    Extras extras;
    extras.wanted = given.recorded != 0;
    call.run(operands, target, extras);
    if (given.recorded != 0)
      return record_call(calls, known, given, arguments, std::move(result), extras).release().ptr();
    return given.tensors != 0 ? wrap(result.release().ptr()).release().ptr()
                              : result.release().ptr();
  } catch (...) {  // whatever it is: the long way says it in the words of the function
    PyErr_Clear();
    Py_RETURN_NONE;
  }
}

PyMethodDef run_method = {"known_call",
                          reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run_known)),
                          METH_FASTCALL, nullptr};

void remember(Calls& calls, const py::tuple& arguments, Call call, py::tuple record) {
  Given given;
  const auto items = reinterpret_cast<PyTupleObject*>(arguments.ptr())->ob_item;
  expect(record.size() <= 16, "record", "is too long");
  if (!read_arguments(calls, items, static_cast<Py_ssize_t>(arguments.size()), given)) return;
  const ElementType type = element_type_of(given.arrays[0]);
  auto known =
      std::make_shared<Known>(Known{std::move(call), std::move(record), py::tuple(), type, {}});
  for (Py_ssize_t i = 0; i < calls.operands; ++i)
    if (given.arrays[i] != nullptr)
      known->shapes[i].assign(fields(given.arrays[i]).dimensions,
                              fields(given.arrays[i]).dimensions + fields(given.arrays[i]).nd);
  const py::tuple shape = py::cast(known->call.shape);
  const py::object dtype = py::handle(given.arrays[0]).attr("dtype");
  known->outputs = py::make_tuple(py::make_tuple(shape, dtype, true, py::handle(graph.numpy)));
  calls.insert(given.key.text(), std::move(known));
}

// (run, remember) for a function whose first arguments are `operands` arrays, Tensors or None.
py::tuple make_calls(int operands, const py::object& function, bool numbers) {
  expect(operands >= 1 && operands <= kMaxOperands, "operands", "are too many");
  // As long as the function: for ever.
  auto* const calls = new Calls{operands, numbers, function, function.attr("apply"), {}, {}};
  const py::capsule self(calls);
  auto run = py::reinterpret_steal<py::object>(PyCFunction_New(&run_method, self.ptr()));
  auto keep = py::cpp_function(
      [calls](const py::tuple& arguments, Call call, py::tuple record) {
        remember(*calls, arguments, std::move(call), std::move(record));
      },
      py::arg("arguments"), py::arg("call"), py::arg("record"));
  return py::make_tuple(run, keep);
}

}  // namespace

const Array& Gradients::make(int operand) {
  Array& gradient = arrays_[operand].emplace();
  gradient.load(new_array_or_throw(shapes_[operand], type_));
  return gradient;
}

PyObject* Gradients::release(int operand) {
  return arrays_[operand] ? Py_XNewRef(arrays_[operand]->object()) : nullptr;
}

bool is_recorded_call(PyObject* context) {
  return Py_IS_TYPE(context, recorded_type());
}

bool keeps_arrays(PyObject* context) {
  bool any = false;
  reinterpret_cast<Recorded*>(context)->each([&](PyObject* array) { any |= array != nullptr; });
  return any;
}

void differentiate(PyObject* context, PyObject* grad_y, PyObject** gradients) {
  const auto& recorded = *reinterpret_cast<Recorded*>(context);
  Kept kept;
  for (int i = 0; i < kMaxOperands; ++i)
    if (recorded.operands[i] != nullptr) kept.operands[i].emplace().load(recorded.operands[i]);
  if (recorded.result != nullptr) kept.result.load(recorded.result);
  for (int i = 0; i < kMaxExtras; ++i)
    if (recorded.extras[i] != nullptr) kept.extras[i].load(recorded.extras[i]);
  const Known& known = *recorded.known;
  Array incoming;
  incoming.load(grad_y);
  Gradients result(recorded.wanted, known.shapes, known.type);
  known.call.gradient(kept, incoming, result);
  for (int i = 0; i < kMaxOperands; ++i)
    gradients[i] = result.wanted(i) ? result.release(i) : nullptr;
}

LAMINA_BINDINGS(calls) {
  if (recorded_type() == nullptr) throw py::error_already_set();
  module.def("calls", &make_calls, py::arg("operands"), py::arg("function"), py::arg("numbers"));
}

}  // namespace lamina::bindings
