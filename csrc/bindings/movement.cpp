// Results that hold elements of their operands in other places: joins, padding, masks.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings/broadcast.h"
#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "bindings/strided_copy.h"

namespace lamina::bindings {
namespace {

using Shape = std::vector<py::ssize_t>;

constexpr int64_t kCopiedBytes = 1 << 17;  // a task

// Joined rows: of `width` bytes, an operand's part begins at starts[i] and ends at starts[i + 1].
struct Joint {
  std::vector<int64_t> starts;

  int64_t width() const { return starts.back(); }
  int64_t part(size_t operand) const { return starts[operand + 1] - starts[operand]; }
};

// y = the operands, row after row.
void join(const Joint& joint, const Operands& given, const Array& y) {
  auto* const result = static_cast<char*>(y.data());
  over(static_cast<int64_t>(y.bytes()), kCopiedBytes, [&](int64_t begin, int64_t end) {
    size_t operand = 0;
    for (int64_t at = begin; at < end;) {
      const int64_t row = at / joint.width(), column = at % joint.width();
      if (column < joint.starts[operand]) operand = 0;
      while (column >= joint.starts[operand + 1]) ++operand;
      const int64_t count = std::min(joint.starts[operand + 1] - column, end - at);
      const auto* const source = static_cast<const char*>(given[operand]->data());
      const int64_t from = row * joint.part(operand) + column - joint.starts[operand];
      std::memcpy(result + at, source + from, static_cast<size_t>(count));
      at += count;
    }
  });
}

// An operand's part of every row of y.
void take_part(const Joint& joint, const Array& y, size_t operand, const Array& result) {
  const int64_t part = joint.part(operand);
  if (part == 0) return;
  const auto* const source = static_cast<const char*>(y.data()) + joint.starts[operand];
  auto* const target = static_cast<char*>(result.data());
  const int64_t width = joint.width();
  over(static_cast<int64_t>(result.bytes()), kCopiedBytes, [=](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end;) {
      const int64_t row = at / part, count = std::min((row + 1) * part, end) - at;
      std::memcpy(target + at, source + row * width + at % part, static_cast<size_t>(count));
      at += count;
    }
  });
}

// parts: the elements that a row takes of each operand.
Call join_call(Shape shape, const std::vector<int64_t>& parts, int64_t item_bytes) {
  auto joint = std::make_shared<Joint>();
  joint->starts = {0};
  for (int64_t part : parts) joint->starts.push_back(joint->width() + part * item_bytes);
  return {std::move(shape),
          [joint](const Operands& given, const Array& y, Extras&) { join(*joint, given, y); },
          [joint](const Kept&, const Array& grad_y, Gradients& gradients) {
            for (size_t i = 0; i + 1 < joint->starts.size(); ++i)
              if (const int operand = static_cast<int>(i); gradients.wanted(operand))
                take_part(*joint, grad_y, i, gradients.make(operand));
          }};
}

// ---- Padding

// What an axis of the result shows of one of x: from `lo` to `hi` the elements from `first` on,
// before and behind them what the tables say, or the value where there are none.
struct Shown {
  int64_t from, to, lo, hi, first;
  std::vector<int64_t> before, behind;
  std::vector<std::vector<int64_t>> places;  // where each element is shown, if there are tables

  bool all() const { return from == to && hi - lo == to; }
  bool has_tables() const { return !places.empty(); }
  // The element at a place of the result; -1: the value.
  int64_t at(int64_t place) const {
    if (place >= lo && place < hi) return first + place - lo;
    if (!has_tables()) return -1;
    return place < lo ? before[static_cast<size_t>(place)]
                      : behind[static_cast<size_t>(place - hi)];
  }
  // An axis that is shown as it is becomes part of this one.
  void take_in(int64_t inner) {
    for (int64_t* const one : {&from, &to, &lo, &hi, &first}) *one *= inner;
  }
};

// low, high: what is added before and after the axis; negative to crop.
Shown shown_axis(int64_t size, int64_t low, int64_t high, const std::string& mode) {
  const int64_t first = std::max<int64_t>(-low, 0), lo = std::max<int64_t>(low, 0);
  const int64_t count = size - first - std::max<int64_t>(-high, 0);
  Shown shown{size, size + low + high, lo, lo + count, first, {}, {}, {}};
  if (mode == "constant") return shown;
  const auto element = [&](int64_t place) {
    const int64_t at = place - low;
    if (mode == "reflect") return size - 1 - std::abs(size - 1 - std::abs(at));
    if (mode == "replicate") return std::clamp<int64_t>(at, 0, size - 1);
    return first + ((at - first) % count + count) % count;  // what a crop leaves wraps around
  };
  for (int64_t i = 0; i < shown.lo; ++i) shown.before.push_back(element(i));
  for (int64_t i = shown.hi; i < shown.to; ++i) shown.behind.push_back(element(i));
  if (shown.before.empty() && shown.behind.empty()) return shown;
  shown.places.resize(static_cast<size_t>(size));
  for (int64_t i = 0; i < shown.to; ++i) {
    const int64_t at = i < shown.lo   ? shown.before[static_cast<size_t>(i)]
                       : i < shown.hi ? first + i - shown.lo
                                      : shown.behind[static_cast<size_t>(i - shown.hi)];
    shown.places[static_cast<size_t>(at)].push_back(i);
  }
  return shown;
}

// The axes of a padded array; the last is its rows.
struct Padding {
  std::vector<Shown> outer;  // innermost first
  Shown row;

  // Tasks are ranges of rows of the result, or of x; body(begin, end).
  template <class Body>
  void ranges(bool of_x, const Body& body) const {
    int64_t rows = 1;
    for (const Shown& axis : outer) rows *= of_x ? axis.from : axis.to;
    const int64_t width = std::max<int64_t>(row.from + row.to, 1);
    over(rows, std::max<int64_t>(2 * kRange / width, 1), body);
  }
  // The row of x that a row of the result shows; -1: the value.
  int64_t source(int64_t place) const {
    int64_t source = 0, rows = 1;
    for (const Shown& axis : outer) {
      const int64_t next = &axis == &outer.back() ? 0 : place / axis.to;  // division is slow
      const int64_t at = axis.at(place - next * axis.to);
      if (at < 0) return -1;
      source += at * rows, rows *= axis.from, place = next;
    }
    return source;
  }
  // Calls body(row) for the rows of the result that show a row of x, from the axis on.
  template <class Body>
  void targets(int64_t source, const Body& body, size_t axis = 0, int64_t base = 0,
               int64_t rows = 1) const {
    if (axis == outer.size()) return body(base);
    const Shown& shown = outer[axis];
    const int64_t at = source % shown.from;
    const auto next = [&](int64_t place) {
      targets(source / shown.from, body, axis + 1, base + place * rows, rows * shown.to);
    };
    if (shown.has_tables()) {
      for (int64_t place : shown.places[static_cast<size_t>(at)]) next(place);
    } else if (at >= shown.first && at < shown.first + shown.hi - shown.lo) {
      next(at - shown.first + shown.lo);
    }
  }
};

template <class W>
void pad(const Padding& padding, const W* x, W value, W* y) {
  const Shown& row = padding.row;
  padding.ranges(false, [&, x, y](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      W* const target = y + r * row.to;
      const int64_t source = padding.source(r);
      if (source < 0) {
        std::fill_n(target, row.to, value);
        continue;
      }
      const W* const shown = x + source * row.from;
      for (int64_t i = 0; i < row.lo; ++i) target[i] = row.has_tables() ? shown[row.at(i)] : value;
      std::memcpy(target + row.lo, shown + row.first,
                  static_cast<size_t>(row.hi - row.lo) * sizeof(W));
      for (int64_t i = row.hi; i < row.to; ++i)
        target[i] = row.has_tables() ? shown[row.at(i)] : value;
    }
  });
}

// grad_x = the sums of what shows each element.
template <class T>
void unpad(const Padding& padding, const T* grad_y, T* grad_x) {
  const Shown& row = padding.row;
  const int64_t count = row.hi - row.lo;
  padding.ranges(true, [&, grad_y, grad_x](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      T* const target = grad_x + r * row.from;
      T* const inner = target + row.first;
      bool first = true;
      padding.targets(r, [&](int64_t place) {
        const T *const shown = grad_y + place * row.to, *const middle = shown + row.lo;
        if (first) {
          std::fill(target, inner, T(0));
          std::memcpy(inner, middle, static_cast<size_t>(count) * sizeof(T));
          std::fill(inner + count, target + row.from, T(0));
          first = false;
        } else {
          for (int64_t i = 0; i < count; ++i) inner[i] += middle[i];
        }
        if (!row.has_tables()) return;
        for (int64_t i = 0; i < row.lo; ++i) target[row.at(i)] += shown[i];
        for (int64_t i = row.hi; i < row.to; ++i) target[row.at(i)] += shown[i];
      });
      if (first) std::fill_n(target, row.from, T(0));
    }
  });
}

// pairs: what is added before and after each axis; negative to crop. Of what but a constant:
// floats.
Call pad_call(Shape shape, const Shape& x_shape,
              const std::vector<std::pair<int64_t, int64_t>>& pairs, const std::string& mode,
              double value) {
  std::vector<Shown> axes;  // innermost first
  for (size_t axis = x_shape.size(); axis-- > 0;) {
    Shown shown = shown_axis(x_shape[axis], pairs[axis].first, pairs[axis].second, mode);
    if (!axes.empty() && axes.back().all() && !shown.has_tables()) {
      const int64_t inner = axes.back().to;
      axes.back() = std::move(shown);
      axes.back().take_in(inner);
    } else {
      axes.push_back(std::move(shown));
    }
  }
  if (axes.empty()) axes.push_back(shown_axis(1, 0, 0, mode));
  Padding padding{{axes.begin() + 1, axes.end()}, axes.front()};
  Call call{std::move(shape),
            [padding, value](const Operands& given, const Array& y, Extras&) {
              const auto run = [&]<class W>(W) {
                pad(padding, static_cast<const W*>(given[0]->data()), static_cast<W>(value),
                    static_cast<W*>(y.data()));
              };
              switch (y.type()) {
                case ElementType::f32:
                  return run(float{});
                case ElementType::f64:
                  return run(double{});
                case ElementType::i64:
                  return run(int64_t{});
                default:
                  return run(bool{});
              }
            },
            [padding](const Kept&, const Array& grad_y, Gradients& gradients) {
              visit_float(grad_y, [&]<class T>(T) {
                unpad(padding, static_cast<const T*>(grad_y.data()),
                      static_cast<T*>(gradients.make(0).data()));
              });
            }};
  call.copies = true;
  return call;
}

// ---- Conversions

template <class From, class To>
void convert(const Array& x, const Array& y) {
  const From* const source = static_cast<const From*>(x.data());
  To* const target = static_cast<To*>(y.data());
  over(y.size(), kRange, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if constexpr (std::is_same_v<To, bool>)
        target[i] = source[i] != 0;
      else
        target[i] = static_cast<To>(source[i]);
  });
}

template <class From>
void convert_from(const Array& x, const Array& y) {
  switch (y.type()) {
    case ElementType::f32:
      return convert<From, float>(x, y);
    case ElementType::f64:
      return convert<From, double>(x, y);
    case ElementType::boolean:
      return convert<From, bool>(x, y);
    default:
      if constexpr (!std::is_floating_point_v<From>) return convert<From, int64_t>(x, y);
  }
  throw std::logic_error("internal: floats become integers in NumPy");  // NaN may be anything
}

void convert(const Array& x, const Array& y) {
  switch (x.type()) {
    case ElementType::f32:
      return convert_from<float>(x, y);
    case ElementType::f64:
      return convert_from<double>(x, y);
    case ElementType::boolean:
      return convert_from<uint8_t>(x, y);
    default:
      return convert_from<int64_t>(x, y);
  }
}

// The gradient is converted back: float32 from double, or the other way round.
Call cast_call(Shape shape, bool to_float, bool to_double) {
  Call call;
  call.constant = !to_float, call.by_places = true;
  call.shape = std::move(shape);
  call.run = [](const Operands& given, const Array& y, Extras&) { convert(*given[0], y); };
  call.gradient = [to_double](const Kept&, const Array& grad_y, Gradients& gradients) {
    Array gradient;
    gradient.load(
        new_array_or_throw(gradients.shape(0), to_double ? ElementType::f32 : ElementType::f64));
    convert(grad_y, gradient);
    gradients.share(0, gradient);
  };
  return call;
}

// ---- Masks

constexpr int64_t kMaskBlock = 4096;

// How many elements the blocks of a mask choose before each block, and in all.
std::vector<int64_t> chosen_before(const uint8_t* mask, int64_t size) {
  const int64_t blocks = (size + kMaskBlock - 1) / kMaskBlock;
  std::vector<int64_t> starts(static_cast<size_t>(blocks) + 1);
  over(blocks, 8, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t stop = std::min(size, (block + 1) * kMaskBlock);
      int32_t count = 0;
      for (int64_t i = block * kMaskBlock; i < stop; ++i) count += mask[i] != 0;
      starts[static_cast<size_t>(block) + 1] = count;
    }
  });
  for (size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
  return starts;
}

// The elements of x that the mask chooses, in order.
template <class W>
void choose(const W* x, const uint8_t* mask, int64_t size, const std::vector<int64_t>& starts,
            W* y) {
  over(static_cast<int64_t>(starts.size()) - 1, 8, [&, x, mask, y](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      W found[kMaskBlock + 1];  // one more, written where nothing is chosen
      const int64_t stop = std::min(size, (block + 1) * kMaskBlock);
      int64_t count = 0;
      for (int64_t i = block * kMaskBlock; i < stop; ++i) {
        found[count] = x[i];
        count += mask[i] != 0;
      }
      std::memcpy(y + starts[static_cast<size_t>(block)], found,
                  static_cast<size_t>(count) * sizeof(W));
    }
  });
}

// x[mask] of one shape.
py::object masked(const Array& x, const Array& mask) {
  expect(x.contiguous() && mask.contiguous() && x.size() == mask.size() &&
             mask.type() == ElementType::boolean,
         "mask", "does not fit");
  const auto* const chosen = static_cast<const uint8_t*>(mask.data());
  const std::vector<int64_t> starts = chosen_before(chosen, x.size());
  Array y;
  y.load(new_array_or_throw({starts.back()}, x.type()));
  const auto run = [&]<class W>(W) {
    choose(static_cast<const W*>(x.data()), chosen, x.size(), starts, static_cast<W*>(y.data()));
  };
  switch (x.type()) {
    case ElementType::f32:
      run(uint32_t{});
      break;
    case ElementType::boolean:
      run(uint8_t{});
      break;
    default:
      run(uint64_t{});
  }
  return py::reinterpret_borrow<py::object>(y.object());
}

}  // namespace

LAMINA_BINDINGS(movement) {
  module.def(
      "in_c_order", [](const py::array& x) { return in_c_order(x.ptr()); },
      "A copy of an array of float32, float64, int64 or booleans in any strides", py::arg("x"));

  module.def("join_call", &join_call,
             "operands: the arrays; parts: how many elements of each are in a row of the result",
             py::arg("shape"), py::arg("parts"), py::arg("item_bytes"));
  module.def("pad_call", &pad_call, "operands: x; pairs (before, after) of every axis",
             py::arg("shape"), py::arg("x_shape"), py::arg("pairs"), py::arg("mode"),
             py::arg("value"));
  module.def("masked", &masked, "x[mask] of one shape: float32, float64, int64 or booleans",
             py::arg("x"), py::arg("mask"));
  module.def("cast_call", &cast_call,
             "operands: x of float32, float64, int64 or booleans; no integers from floats",
             py::arg("shape"), py::arg("to_float"), py::arg("to_double"));
  module.def(
      "clone_call",
      [](Shape shape) {
        return Call{
            std::move(shape),
            [](const Operands& given, const Array& y, Extras&) {
              const auto* const source = static_cast<const char*>(given[0]->data());
              auto* const target = static_cast<char*>(y.data());
              over(static_cast<int64_t>(y.bytes()), kCopiedBytes, [=](int64_t begin, int64_t end) {
                std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
              });
            },
            [](const Kept&, const Array& grad_y, Gradients& gradients) {
              gradients.share(0, grad_y);
            }};
      },
      "operands: x", py::arg("shape"));
}

}  // namespace lamina::bindings
