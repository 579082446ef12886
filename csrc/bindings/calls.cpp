#include "bindings/calls.h"

#include <cstring>
#include <mutex>
#include <string_view>
#include <unordered_map>

#include "bindings/call_arguments.h"
#include "bindings/common.h"
#include "bindings/filter_store.h"
#include "bindings/graph.h"
#include "bindings/numpy_array.h"
#include "bindings/numpy_loops.h"

namespace lamina::bindings {
namespace {

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

  OperandRules rules;
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

// The result as an output of a new Node; `second` is the Tensor on the first of the extras, or
// null.
py::object record_call(const Calls& calls, const std::shared_ptr<const Known>& known,
                       const Given& given, PyObject* const* arguments, py::object result,
                       const Extras& extras, const py::object& second) {
  const py::object context = new_context(known, given, result.ptr(), extras, calls.rules.operands);
  py::object tensor = wrap(result.release().ptr());
  const py::object edges = stolen(PyTuple_New(calls.rules.operands));
  PyObject *tensors[kMaxOperands + 2] = {tensor.ptr()}, *kept[kMaxOperands + 2];
  Py_ssize_t tensor_count = 1, kept_count = 0;
  if (second) {
    tensors[tensor_count++] = second.ptr();
    kept[kept_count++] = array_shown_by(second);
  }
  const unsigned keeps = given.kept(known->call);
  for (Py_ssize_t i = 0; i < calls.rules.operands; ++i) {
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
  for (; count < calls.rules.operands; ++count) stack[count] = arguments[count];
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

py::object run_strided(const Calls& calls, const Known& known, const Given& given) {
  const bool keeps_result = (given.kept(known.call) & kResult) != 0;
  PyObject* const second = calls.rules.operands > 1 ? given.arrays[1] : nullptr;
  return known.call.loops->each_strided(known.call.shape, given.arrays[0], second, known.type,
                                        keeps_result);
}

// The result, where the call takes its operand as it lies in memory; null where it does not.
py::object run_uncopied(const Known& known, const Given& given) {
  const Call& call = known.call;
  const bool keeps = given.recorded != 0 && (given.kept(call) & 1) != 0;
  if (given.strided != 1 || !call.run_uncopied || keeps) return {};
  py::object result = new_array_or_throw(call.shape, known.type);
  Array operand, target;
  operand.load(given.arrays[0]), target.load(result);
  return call.run_uncopied(operand, target) ? result : py::object();
}

// packed: the Tensor beside which its packed form may be kept, or null.
py::object run_in_order(const Calls& calls, const Known& known, const Given& given,
                        PyObject* packed, Extras& extras) {
  const Call& call = known.call;
  py::object result = new_result(call, given, known.type);
  std::optional<FilterStore> filters;
  Operands operands;
  for (Py_ssize_t i = 0; i < calls.rules.operands; ++i)
    if (given.arrays[i] != nullptr) operands[i].emplace().load(given.arrays[i]);
  if (packed != nullptr) operands[call.packs]->set_filters(&filters.emplace(packed));
  Array target;
  target.load(result);
  call.run(operands, target, extras);
  return turned_back(call, given, std::move(result));
}

// The result, or None for a call that is not known.
PyObject* run_known(PyObject* self, PyObject* const* arguments, Py_ssize_t count) {
  Calls& calls = calls_of(self);
  Given given;
  try {
    if (!read_arguments(calls.rules, arguments, count, given)) Py_RETURN_NONE;
  } catch (...) {  // no memory
    PyErr_Clear();
    Py_RETURN_NONE;
  }
  const std::shared_ptr<const Known> known = calls.find(given.key.text());
  if (known == nullptr) Py_RETURN_NONE;
  const Call& call = known->call;
  given.tensors &= call.differentiable, given.recorded &= call.differentiable;
  if (call.constant) given.recorded = 0;
  const bool packs = call.packs >= 0 && given.recorded == 0 && is_tensor(arguments[call.packs]);
  for (Py_ssize_t i = 0; i < calls.rules.operands; ++i)
    if ((given.tensors >> i & 1) != 0 && !(packs && i == call.packs)) forget_packed(arguments[i]);
  const bool compiled = call.gradient && (given.recorded & ~call.compiled) == 0;
  if (given.recorded != 0 && !compiled) return apply(calls, *known, arguments);
  try {
    Extras extras;
    extras.wanted = given.recorded != 0;
    py::object result = run_uncopied(*known, given);
    if (!result && !arrange(call, given)) Py_RETURN_NONE;
    PyObject* const packed = packs ? arguments[call.packs] : nullptr;
    if (!result)
      result = given.strided != 0 ? run_strided(calls, *known, given)
                                  : run_in_order(calls, *known, given, packed, extras);
    py::object second;
    if (call.second) second = py::reinterpret_borrow<py::object>(extras[0].object());
    if (second && given.tensors != 0) second = wrap(second.release().ptr());
    if (given.recorded != 0)
      result = record_call(calls, known, given, arguments, std::move(result), extras, second);
    else if (given.tensors != 0)
      result = wrap(result.release().ptr());
    if (!second) return result.release().ptr();
    return PyTuple_Pack(2, result.ptr(), second.ptr());
  } catch (...) {  // whatever it is: the long way says it in the words of the function
    PyErr_Clear();
    Py_RETURN_NONE;
  }
}

PyMethodDef run_method = {"known_call",
                          reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&run_known)),
                          METH_FASTCALL, nullptr};

// The operand's own shape: the array read may be the transpose, or a number.
std::vector<py::ssize_t> operand_shape(PyObject* argument, PyObject* read) {
  if (is_tensor(argument)) argument = array_shown_by(argument);
  return shape_of(is_plain_array(argument) ? argument : read);
}

py::tuple outputs_of(const std::vector<py::ssize_t>& shape, py::handle dtype) {
  const py::tuple extents = py::cast(shape);
  return py::make_tuple(py::make_tuple(extents, dtype, true, py::handle(graph.numpy)));
}

void remember(Calls& calls, const py::tuple& arguments, py::handle y, Call call, py::tuple record) {
  Given given;
  const auto items = reinterpret_cast<PyTupleObject*>(arguments.ptr())->ob_item;
  expect(record.size() <= 16, "record", "is too long");
  if (!read_arguments(calls.rules, items, static_cast<Py_ssize_t>(arguments.size()), given)) return;
  const ElementType type = element_type_of(y.ptr());
  auto known =
      std::make_shared<Known>(Known{std::move(call), std::move(record), py::tuple(), type, {}});
  for (Py_ssize_t i = 0; i < calls.rules.operands; ++i)
    if (given.arrays[i] != nullptr) known->shapes[i] = operand_shape(items[i], given.arrays[i]);
  known->outputs = outputs_of(known->call.shape, fields(y.ptr()).descr);
  calls.insert(given.key.text(), std::move(known));
}

// (run, remember) for a function whose first arguments are `operands` arrays, Tensors or None.
py::tuple make_calls(int operands, const py::object& function, bool numbers,
                     const std::string& layouts) {
  expect(operands >= 1 && operands <= kMaxOperands, "operands", "are too many");
  // As long as the function: for ever.
  auto* const calls = new Calls{{operands, numbers,
                                 layouts == "copied"       ? Layouts::copied
                                 : layouts == "transposed" ? Layouts::transposed
                                                           : Layouts::refused},
                                function,
                                function.attr("apply"),
                                {},
                                {}};
  const py::capsule self(calls);
  auto run = py::reinterpret_steal<py::object>(PyCFunction_New(&run_method, self.ptr()));
  auto keep = py::cpp_function(
      [calls](const py::tuple& arguments, py::handle y, Call call, py::tuple record) {
        remember(*calls, arguments, y, std::move(call), std::move(record));
      },
      py::arg("arguments"), py::arg("y"), py::arg("call"), py::arg("record"));
  return py::make_tuple(run, keep);
}

}  // namespace

const Array& Gradients::make(int operand) {
  Array& gradient = arrays_[operand].emplace();
  gradient.load(new_array_or_throw(shapes_[operand], type_));
  return gradient;
}

const Array& Gradients::make_over(int operand) {
  if (grad_y_ == nullptr) return make(operand);
  written_over_ = true;
  return arrays_[operand].emplace(*grad_y_);
}

std::optional<Array> Gradients::take_arrived() {
  if (arrived_ == nullptr) return {};
  arrived_taken_ = true;
  return *arrived_;
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

unsigned differentiate(PyObject* context, PyObject* grad_y, bool owned, PyObject*& arrived,
                       PyObject** gradients) {
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
  const bool reusable = owned && incoming.writeable() && incoming.type() == known.type;
  Array before;
  const bool addable = arrived != nullptr && is_plain_array(arrived) && is_ready(arrived) &&
                       element_type_of(arrived) == known.type;
  if (addable) before.load(arrived);
  Gradients result(recorded.wanted, known.shapes, known.type, reusable ? &incoming : nullptr,
                   addable ? &before : nullptr);
  known.call.gradient(kept, incoming, result);
  if (result.arrived_taken()) arrived = nullptr;
  unsigned shared = 0;
  for (int i = 0; i < kMaxOperands; ++i) {
    if (result.shows(i, incoming.data()) && !result.written_over()) shared |= 1U << i;
    gradients[i] = result.wanted(i) ? result.release(i) : nullptr;
  }
  return shared;
}

void record_result(py::handle function, py::handle tensor, py::handle operand, Call call) {
  PyObject *const result = array_shown_by(tensor), *const source = array_shown_by(operand);
  call.shape = shape_of(result);
  auto known = std::make_shared<Known>();
  known->type = element_type_of(result);
  known->shapes[0] = shape_of(source);
  known->call = std::move(call);
  Given given;
  given.recorded = 1;
  const Extras nothing;
  const py::object context = new_context(known, given, result, nothing, 1);
  const py::object edges = stolen(PyTuple_New(1)), versions = stolen(PyTuple_New(0));
  PyTuple_SET_ITEM(edges.ptr(), 0, new_edge(operand));
  const py::tuple outputs = outputs_of(known->call.shape, fields(result).descr);
  attach(tensor, new_node(function, context, edges, outputs, versions), 0);
}

LAMINA_BINDINGS(calls) {
  if (recorded_type() == nullptr) throw py::error_already_set();
  module.def("calls", &make_calls, py::arg("operands"), py::arg("function"), py::arg("numbers"),
             py::arg("layouts"));
}

}  // namespace lamina::bindings
