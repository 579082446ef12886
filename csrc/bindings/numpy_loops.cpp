#include "bindings/numpy_loops.h"

#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "bindings/graph.h"
#include "bindings/numpy_array.h"

namespace lamina::bindings {
namespace {

// The head of NumPy's PyUFuncObject, which is part of its ABI.
struct Ufunc {
  PyObject_HEAD int nin, nout, nargs, identity;
  decltype(Loop::run)* functions;
  void* const* data;
  int ntypes, reserved;
  const char* name;
  const char* types;  // [ntypes, nargs]: NumPy's numbers
};

constexpr ElementType kTypes[] = {ElementType::f32, ElementType::f64, ElementType::i64,
                                  ElementType::boolean};

size_t bytes_of(ElementType type) {
  return type == ElementType::boolean ? 1 : type == ElementType::f32 ? 4 : 8;
}

Loop loop_for(const Ufunc& ufunc, ElementType type) {
  for (int i = 0; i < ufunc.ntypes; ++i) {
    const char* const types = ufunc.types + i * ufunc.nargs;
    const bool fits = std::all_of(types, types + ufunc.nin,
                                  [&](char number) { return number == type_number(type); });
    const char result = types[ufunc.nin];
    const auto is = [&](ElementType other) { return result == type_number(other); };
    if (fits && (is(type) || is(ElementType::boolean)))
      return {ufunc.functions[i], ufunc.data == nullptr ? nullptr : ufunc.data[i]};
  }
  return {};
}

}  // namespace

const Loops& Loops::of(const char* name) {
  static auto& made = *new std::map<std::string, Loops>;
  static std::mutex mutex;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = made.find(name);
    if (found != made.end()) return found->second;
  }
  const py::object object = py::handle(graph.numpy).attr(name);  // NumPy keeps it
  const auto& ufunc = *reinterpret_cast<const Ufunc*>(object.ptr());
  if (!py::isinstance(object, py::handle(graph.numpy).attr("ufunc")) || ufunc.nout != 1 ||
      ufunc.nin > 2)
    throw std::logic_error(std::string("internal: no ufunc of one result: ") + name);
  Loops loops;
  loops.operands_ = ufunc.nin;
  for (size_t i = 0; i < std::size(kTypes); ++i) loops.loops_[i] = loop_for(ufunc, kTypes[i]);
  const std::lock_guard<std::mutex> lock(mutex);
  return made.emplace(name, loops).first->second;
}

const Loop& Loops::at(ElementType type) const {
  static const Loop none;
  for (size_t i = 0; i < std::size(kTypes); ++i)
    if (kTypes[i] == type) return loops_[i];
  return none;
}

void Loops::each(const Broadcast& shapes, const Array& a, const Array* b, const Array& y) const {
  const Loop& loop = at(a.type());
  if (loop.run == nullptr || (b != nullptr) != (operands_ == 2))
    throw std::logic_error("internal: no such loop of NumPy");
  const auto bytes = static_cast<py::ssize_t>(bytes_of(a.type()));
  const auto y_bytes = static_cast<py::ssize_t>(bytes_of(y.type()));
  char *const left = static_cast<char*>(a.data()),
              *const right = b == nullptr ? nullptr : static_cast<char*>(b->data()),
              *const result = static_cast<char*>(y.data());
  const py::ssize_t steps[2] = {shapes.moves(0) ? bytes : 0, shapes.moves(1) ? bytes : 0};
  shapes.rows([&](const Broadcast::Place& place) {
    char* data[3] = {left + place.at[0] * bytes, right, nullptr};
    py::ssize_t walk[3] = {steps[0], steps[1], y_bytes};
    int next = 1;
    if (right != nullptr) data[next++] = right + place.at[1] * bytes;
    data[next] = result + place.y * y_bytes;
    walk[next] = y_bytes;
    const py::ssize_t count = place.count;
    loop.run(data, &count, walk, loop.details);
  });
}

void Loops::stretch(ElementType type, const void* x, void* y, int64_t count) const {
  const Loop& loop = at(type);
  const auto bytes = static_cast<py::ssize_t>(bytes_of(type));
  char* data[2] = {static_cast<char*>(const_cast<void*>(x)), static_cast<char*>(y)};
  const py::ssize_t steps[2] = {bytes, bytes}, length = count;
  loop.run(data, &length, steps, loop.details);
}

}  // namespace lamina::bindings
