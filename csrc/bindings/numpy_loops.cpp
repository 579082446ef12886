#include "bindings/numpy_loops.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "bindings/common.h"
#include "bindings/graph.h"
#include "bindings/numpy_array.h"
#include "bindings/on_processor.h"
#include "bindings/strided_copy.h"

LAMINA_ARGS(ElementwiseArgs)

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

// How operands in any strides are walked, and the result in the order of the walk.
class Walk {
 public:
  static constexpr int kMaxRank = 32, kMost = 3;  // operands, and the result

  Walk(const std::vector<py::ssize_t>& shape, PyObject* const* operands, int count, bool dense,
       bool c_order)
      : count_(count) {
    const auto rank = static_cast<int>(shape.size());
    for (int k = 0; k < count; ++k) read(k, operands[k], shape);
    for (int axis = 0; axis < rank; ++axis) order_[axis] = axis;
    const int leading = c_order ? -1 : leading_operand(shape);
    for (int i = 1; leading >= 0 && i < rank; ++i)
      for (int j = i; j > 0 && lies_within(leading, order_[j - 1], order_[j]); --j)
        std::swap(order_[j - 1], order_[j]);
    for (int k = 0; k < count; ++k) turn(k, shape, dense);
  }

  // A new array whose memory has the order of the walk; rows of the walk from now on.
  py::object result(const std::vector<py::ssize_t>& shape, ElementType type) {
    std::vector<py::ssize_t> walked(shape.size()), strides(shape.size());
    for (size_t i = 0; i < shape.size(); ++i) walked[i] = shape[static_cast<size_t>(order_[i])];
    py::object array = new_array_or_throw(walked, type);
    auto stride = static_cast<py::ssize_t>(bytes_of(type));
    for (size_t i = shape.size(); i-- > 0; stride *= walked[i]) {
      strides[static_cast<size_t>(order_[i])] = stride;
      strides_[count_][order_[i]] = stride;
    }
    data_[count_] = fields(array.ptr()).data;
    if (std::is_sorted(order_, order_ + shape.size())) return array;
    return view_of(array.ptr(), static_cast<int>(shape.size()), shape.data(), strides.data(),
                   fields(array.ptr()).data);
  }

  void run(const std::vector<py::ssize_t>& shape, const Loop& loop) {
    merge(shape);
    const int all = count_ + 1, inner = axes_ - 1;  // the last axis is the row
    const int64_t chunk = std::min(extent_[inner], kRange);
    const int64_t chunks = (extent_[inner] + chunk - 1) / chunk;
    int64_t rows = chunks;
    for (int axis = 0; axis < inner; ++axis) rows *= extent_[axis];
    over(rows, std::max<int64_t>(kRange / chunk, 1), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        char* data[kMost];
        const int64_t first = row % chunks * chunk;
        int64_t place = row / chunks;
        for (int k = 0; k < all; ++k) data[k] = data_[k] + first * steps_[k][inner];
        for (int axis = inner; axis-- > 0; place /= extent_[axis])
          for (int k = 0; k < all; ++k) data[k] += place % extent_[axis] * steps_[k][axis];
        py::ssize_t steps[kMost];
        for (int k = 0; k < all; ++k) steps[k] = steps_[k][inner];
        const py::ssize_t length = std::min(chunk, extent_[inner] - first);
        loop.run(data, &length, steps, loop.details);
      }
    });
  }

 private:
  void read(int k, PyObject* operand, const std::vector<py::ssize_t>& shape) {
    arrays_[k] = py::reinterpret_borrow<py::object>(operand);
    const auto& x = fields(operand);
    const auto missing = static_cast<int>(shape.size()) - x.nd;
    data_[k] = x.data;
    for (int axis = 0; axis < static_cast<int>(shape.size()); ++axis) {
      const bool moves = axis >= missing && x.dimensions[axis - missing] != 1;
      strides_[k][axis] = moves ? x.strides[axis - missing] : 0;
    }
  }
  // The first operand that has an element for each of the result's, where none of them is in C
  // order; else -1.
  int leading_operand(const std::vector<py::ssize_t>& shape) const {
    int leading = -1;
    for (int k = count_; k-- > 0;) {
      bool whole = true;
      for (size_t axis = 0; axis < shape.size(); ++axis)
        whole = whole && (shape[axis] == 1 || strides_[k][axis] != 0);
      if (!whole) continue;
      if (is_aligned_in_c_order(arrays_[k].ptr())) return -1;
      leading = k;
    }
    return leading;
  }
  bool lies_within(int operand, int outer, int inner) const {
    const int64_t far = std::abs(strides_[operand][outer]),
                  near = std::abs(strides_[operand][inner]);
    return far != 0 && near != 0 && far < near;
  }
  // Copies an operand that is dense along another axis than the rows of the walk; `copied`: or
  // along none.
  void turn(int k, const std::vector<py::ssize_t>& shape, bool copied) {
    const auto item = py::reinterpret_borrow<py::array>(arrays_[k]).itemsize();
    py::ssize_t extents[kMaxRank], strides[kMaxRank];
    int rank = 0, axes[kMaxRank];
    bool dense = copied;
    for (size_t i = 0; i < shape.size(); ++i) {
      const int axis = order_[i];
      if (strides_[k][axis] == 0 || shape[static_cast<size_t>(axis)] == 1) continue;
      extents[rank] = shape[static_cast<size_t>(axis)], strides[rank] = strides_[k][axis];
      dense |= strides[rank] == item, axes[rank++] = axis;
    }
    if (!dense || rank == 0 || strides[rank - 1] == item) return;
    const py::object turned = view_of(arrays_[k].ptr(), rank, extents, strides, data_[k]);
    arrays_[k] = in_c_order(turned.ptr());
    data_[k] = fields(arrays_[k].ptr()).data;
    for (int i = 0; i < rank; ++i) strides_[k][axes[i]] = fields(arrays_[k].ptr()).strides[i];
  }
  // Axes that all walk alike become one.
  void merge(const std::vector<py::ssize_t>& shape) {
    axes_ = 0;
    for (size_t i = 0; i < shape.size(); ++i) {
      const int axis = order_[i];
      const int64_t extent = shape[static_cast<size_t>(axis)];
      if (extent == 1) continue;
      bool alike = axes_ > 0;
      for (int k = 0; alike && k <= count_; ++k)
        alike = steps_[k][axes_ - 1] == strides_[k][axis] * extent;
      if (!alike) extent_[axes_++] = 1;
      extent_[axes_ - 1] *= extent;
      for (int k = 0; k <= count_; ++k) steps_[k][axes_ - 1] = strides_[k][axis];
    }
    if (axes_ > 0) return;
    axes_ = 1, extent_[0] = 1;
    for (auto& steps : steps_) steps[0] = 0;
  }

  int count_, axes_ = 0;
  int order_[kMaxRank] = {};  // of the axes in the walk, outermost first
  py::object arrays_[kMost];
  char* data_[kMost] = {};
  int64_t strides_[kMost][kMaxRank], steps_[kMost][kMaxRank], extent_[kMaxRank];
};

struct Named {
  std::string_view name;
  ops::Elementwise kernel;
  int operands;
};
constexpr Named kKernels[] = {{"sign", ops::Elementwise::sign, 1},
                              {"rsqrt", ops::Elementwise::rsqrt, 1},
                              {"cube", ops::Elementwise::cube, 1},
                              {"inverse_square", ops::Elementwise::inverse_square, 1},
                              {"floor_divide", ops::Elementwise::floor_divide, 2},
                              {"remainder", ops::Elementwise::remainder, 2}};

void run_kernel(ops::Elementwise kind, const Broadcast& shapes, const Array& a, const Array* b,
                const Array& y) {
  visit_float(y, [&]<class T>(T) {
    const OnProcessor processor;
    const ops::Kernel& kernel = ops::plan_kernel("elementwise", "fprop");
    const ops::WatchedCall call;
    const T* const left = checked_data<T>(a, "a", a.size());
    const T* const right = b ? checked_data<T>(*b, "b", b->size()) : nullptr;
    T* const result = checked_data<T>(y, "y", y.size());
    const auto stretch = [&](const Broadcast::Place& place) {
      ops::ElementwiseArgs<T> args;
      args.kind = kind, args.size = place.count;
      args.a_moves = shapes.moves(0), args.b_moves = shapes.moves(1);
      args.a = left + place.at[0], args.b = right ? right + place.at[1] : nullptr;
      args.result = result + place.y;
      ops::call_function(kernel, args);
    };
    if (!shapes.is_row()) return shapes.rows(stretch);
    std::optional<py::gil_scoped_release> release;
    if (y.size() > kRange / 4) release.emplace();  // giving it up costs more than fewer
    stretch({{}, 0, y.size()});
  });
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
  for (const Named& named : kKernels)
    if (named.name == name) {
      Loops loops;
      loops.operands_ = named.operands, loops.kernel_ = named.kernel;
      const std::lock_guard<std::mutex> lock(mutex);
      return made.emplace(name, loops).first->second;
    }
  const py::object object = py::handle(graph.numpy).attr(name);  // NumPy keeps it
  const auto& ufunc = *reinterpret_cast<const Ufunc*>(object.ptr());
  if (!py::isinstance(object, py::handle(graph.numpy).attr("ufunc")) || ufunc.nout != 1 ||
      ufunc.nin > 2)
    throw std::logic_error(std::string("internal: no ufunc of one result: ") + name);
  Loops loops;
  loops.operands_ = ufunc.nin;
  loops.dense_ = ufunc.nin == 1 || std::strcmp(name, "power") == 0;
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
  if (kernel_) return run_kernel(*kernel_, shapes, a, b, y);
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

py::object Loops::each_strided(const std::vector<py::ssize_t>& shape, PyObject* a, PyObject* b,
                               ElementType result, bool c_order) const {
  const Loop& loop = at(element_type_of(a));
  if (loop.run == nullptr || (b != nullptr) != (operands_ == 2) || shape.size() > Walk::kMaxRank)
    throw std::logic_error("internal: no such loop of NumPy");
  PyObject* const operands[] = {a, b};
  Walk walk(shape, operands, operands_, dense_, c_order);
  py::object y = walk.result(shape, result);
  walk.run(shape, loop);
  return y;
}

LAMINA_BINDINGS(numpy_loops) {
  module.def(
      "elementwise",
      [](const std::string& name, const Array& a, const std::optional<Array>& b, const Array& y) {
        const auto shape = shape_of(y.object()), left = shape_of(a.object());
        const auto right = b ? shape_of(b->object()) : shape;
        Loops::of(name.c_str()).each(Broadcast(shape, {&left, &right}), a, b ? &*b : nullptr, y);
      },
      "y = the function of a kernel", py::arg("name"), py::arg("a"), py::arg("b"), py::arg("y"));
}

}  // namespace lamina::bindings
