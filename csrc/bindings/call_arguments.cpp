#include "bindings/call_arguments.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <span>

#include "bindings/graph.h"
#include "bindings/numpy_array.h"
#include "bindings/strided_copy.h"

namespace lamina::bindings {
namespace {

constexpr int kMaxRank = 32;
constexpr py::ssize_t kMostCopied = 1 << 18;  // bytes; Python has ways for larger ones

// An array of no dimension with the number; null for one that the dtype cannot hold.
py::object number_array(PyObject* number, ElementType type) {
  const bool integer = type == ElementType::i64;
  if (!integer && type != ElementType::f32 && type != ElementType::f64) return {};
  if (integer && !PyLong_CheckExact(number)) return {};
  const double real = integer ? 0 : PyFloat_AsDouble(number);
  const long long whole = integer ? PyLong_AsLongLong(number) : 0;
  if ((real == -1 || whole == -1) && PyErr_Occurred()) return PyErr_Clear(), py::object();
  auto array = py::reinterpret_steal<py::object>(new_array(nullptr, 0, type));
  if (!array) return array;
  void* const data = fields(array.ptr()).data;
  if (integer)
    *static_cast<int64_t*>(data) = whole;
  else if (type == ElementType::f64)
    *static_cast<double*>(data) = real;
  else
    *static_cast<float*>(data) = static_cast<float>(real);
  return array;
}

// Numbers become arrays, of the dtype of the arrays beside them. False where that is impossible.
bool make_numbers(const OperandRules& rules, PyObject* const* arguments, Given& given) {
  ElementType type = ElementType::other;
  for (PyObject* array : std::span(given.arrays, static_cast<size_t>(rules.operands)))
    if (array != nullptr) type = element_type_of(array);
  for (Py_ssize_t i = 0; i < rules.operands; ++i) {
    if (given.arrays[i] != nullptr || arguments[i] == Py_None) continue;
    given.made[i] = number_array(arguments[i], type);
    if (!given.made[i]) return false;
    given.arrays[i] = given.made[i].ptr();
  }
  return true;
}

// The array with its last two axes swapped, if that is in C order.
py::object transposed(PyObject* array) {
  const auto& proxy = fields(array);
  constexpr int kMaxRank = 8;
  if (proxy.nd < 2 || proxy.nd > kMaxRank) return {};
  py::ssize_t shape[kMaxRank], strides[kMaxRank];
  std::copy(proxy.dimensions, proxy.dimensions + proxy.nd, shape);
  std::copy(proxy.strides, proxy.strides + proxy.nd, strides);
  std::swap(shape[proxy.nd - 1], shape[proxy.nd - 2]);
  std::swap(strides[proxy.nd - 1], strides[proxy.nd - 2]);
  py::object view = view_of(array, proxy.nd, shape, strides, proxy.data);
  return is_aligned_in_c_order(view.ptr()) ? view : py::object();
}

// The array, or what takes its place; null where Python must look at it.
PyObject* readable(const OperandRules& rules, PyObject* array, Py_ssize_t operand, Given& given) {
  if (!is_plain_array(array) || !is_operand_type(element_type_of(array))) return nullptr;
  if (is_aligned_in_c_order(array)) return array;
  if (rules.layouts == Layouts::refused || !is_aligned(array)) return nullptr;
  py::object& made = given.made[operand];
  if (rules.layouts == Layouts::transposed) made = transposed(array);
  if (made) return given.key.transposed(), made.ptr();
  given.strided |= 1U << operand;
  return array;
}

// A view of the array with its axes in the order; null where that is not C order.
py::object turned(PyObject* array, const std::vector<int>& order) {
  const auto& x = fields(array);
  py::ssize_t extents[kMaxRank], strides[kMaxRank];
  if (x.nd > kMaxRank) return {};
  for (size_t i = 0; i < order.size(); ++i)
    extents[i] = x.dimensions[order[i]], strides[i] = x.strides[order[i]];
  py::object view = view_of(array, x.nd, extents, strides, x.data);
  return is_aligned_in_c_order(view.ptr()) ? view : py::object();
}

// Whether all operands of the shape, apart from single elements, lie in memory alike, every place
// filled: they are turned then.
bool turn(const std::vector<py::ssize_t>& shape, Given& given) {
  py::object views[kMaxOperands];
  std::vector<int> order;
  for (int i = 0; i < kMaxOperands; ++i) {
    PyObject* const x = given.arrays[i];
    if (x == nullptr || py::reinterpret_borrow<py::array>(x).size() == 1) continue;
    if (shape_of(x) != shape) return false;
    if (order.empty()) order = memory_order(x);
    views[i] = turned(x, order);
    if (!views[i]) return false;
  }
  for (int i = 0; i < kMaxOperands; ++i)
    if (views[i]) given.made[i] = views[i], given.arrays[i] = views[i].ptr();
  given.order = std::move(order);
  return true;
}

}  // namespace

std::vector<int> memory_order(PyObject* array) {
  const auto& x = fields(array);
  std::vector<int> order(static_cast<size_t>(x.nd));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return x.strides[a] > x.strides[b]; });
  return order;
}

bool read_arguments(const OperandRules& rules, PyObject* const* arguments, Py_ssize_t count,
                    Given& given) {
  if (count < rules.operands) return false;
  bool numbers = false;
  for (Py_ssize_t i = 0; i < rules.operands; ++i) {
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
    if (rules.numbers && (PyFloat_CheckExact(object) || PyLong_CheckExact(object))) {
      given.key.number();
      numbers = true;
      continue;
    }
    given.arrays[i] = readable(rules, object, i, given);
    if (given.arrays[i] == nullptr) return false;
    given.key.array(given.arrays[i]);
  }
  if (numbers && !make_numbers(rules, arguments, given)) return false;
  for (Py_ssize_t i = rules.operands; i < count; ++i)
    if (!given.key.value(arguments[i])) return false;
  return given.key.fits() && given.arrays[0] != nullptr;
}

bool arrange(const Call& call, Given& given) {
  if (given.strided != 0 && call.by_places && given.recorded == 0 && turn(call.shape, given))
    return given.strided = 0, true;
  for (int i = 0; i < kMaxOperands; ++i) {
    if ((given.strided >> i & 1) == 0) continue;
    if (call.loops != nullptr) {
      if ((given.kept(call) >> i & 1) == 0) continue;
    } else if (!call.by_places && !call.copies &&
               py::reinterpret_borrow<py::array>(given.arrays[i]).nbytes() > kMostCopied) {
      return false;
    }
    given.made[i] = in_c_order(given.arrays[i]);
    given.arrays[i] = given.made[i].ptr();
    given.strided &= ~(1U << i);
  }
  return true;
}

py::object new_result(const Call& call, const Given& given, ElementType type) {
  if (given.order.empty()) return new_array_or_throw(call.shape, type);
  std::vector<py::ssize_t> shape;
  for (int axis : given.order) shape.push_back(call.shape[static_cast<size_t>(axis)]);
  return new_array_or_throw(shape, type);
}

py::object turned_back(const Call& call, const Given& given, py::object result) {
  if (given.order.empty()) return result;
  const auto& y = fields(result.ptr());
  py::ssize_t strides[kMaxRank];
  for (size_t i = 0; i < given.order.size(); ++i) strides[given.order[i]] = y.strides[i];
  return view_of(result.ptr(), y.nd, call.shape.data(), strides, y.data);
}

}  // namespace lamina::bindings
