// Results that hold elements of their operands in other places: joins, padding, rows by index.
#include <algorithm>
#include <cstring>
#include <stdexcept>
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

// Where a box of one array lies in another, along one axis.
struct Span {
  int64_t from, to, from_start, to_start, count;  // extents and first indices of both

  Span turned() const { return {to, from, to_start, from_start, count}; }
};
using Spans = std::vector<Span>;  // outermost first

// y = the box of x, and `value` around it.
template <class W>
void place_box(const Spans& spans, const W* x, W value, W* y) {
  const Span last = spans.back();
  int64_t rows = 1;
  for (size_t axis = 0; axis + 1 < spans.size(); ++axis) rows *= spans[axis].to;
  over(rows, std::max<int64_t>(kRange / std::max<int64_t>(last.to, 1), 1),
       [&](int64_t begin, int64_t end) {
         for (int64_t row = begin; row < end; ++row) {
           W* const target = y + row * last.to;
           int64_t source = 0, stride = last.from, rest = row;
           bool inside = last.count > 0;
           for (size_t axis = spans.size() - 1; axis-- > 0;) {
             const Span& span = spans[axis];
             const int64_t index = rest % span.to - span.to_start;
             rest /= span.to;
             inside = inside && index >= 0 && index < span.count;
             source += (index + span.from_start) * stride;
             stride *= span.from;
           }
           if (!inside) {
             std::fill_n(target, last.to, value);
             continue;
           }
           std::fill_n(target, last.to_start, value);
           std::memcpy(target + last.to_start, x + source + last.from_start,
                       static_cast<size_t>(last.count) * sizeof(W));
           std::fill(target + last.to_start + last.count, target + last.to, value);
         }
       });
}

void place(const Spans& spans, const Array& x, double value, const Array& y) {
  const auto run = [&]<class W>(W) {
    place_box(spans, static_cast<const W*>(x.data()), static_cast<W>(value),
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
}

// pairs: what is added before and after each axis; negative to crop.
Call pad_call(Shape shape, const Shape& x_shape,
              const std::vector<std::pair<int64_t, int64_t>>& pairs, double value) {
  Spans spans;
  for (size_t axis = 0; axis < x_shape.size(); ++axis) {
    const auto [low, high] = pairs[axis];
    const int64_t size = x_shape[axis], cropped = std::max<int64_t>(-low, 0);
    const int64_t count = size - cropped - std::max<int64_t>(-high, 0);
    spans.push_back({size, size + low + high, cropped, std::max<int64_t>(low, 0), count});
  }
  // An axis that stays as it is counts the elements of the one before.
  while (spans.size() > 1 && spans.back().from == spans.back().to &&
         spans.back().count == spans.back().to) {
    const int64_t inner = spans.back().to;
    spans.pop_back();
    Span& outer = spans.back();
    outer = {outer.from * inner, outer.to * inner, outer.from_start * inner, outer.to_start * inner,
             outer.count * inner};
  }
  if (spans.empty()) spans.push_back({1, 1, 0, 0, 1});
  Spans back;
  for (const Span& span : spans) back.push_back(span.turned());
  return {std::move(shape),
          [spans, value](const Operands& given, const Array& y, Extras&) {
            place(spans, *given[0], value, y);
          },
          [back](const Kept&, const Array& grad_y, Gradients& gradients) {
            place(back, grad_y, 0, gradients.make(0));
          }};
}

// The row that an index names, counted from the end where it is negative.
int64_t row_of(int64_t index, int64_t rows) {
  if (index < 0) index += rows;
  if (index < 0 || index >= rows) throw std::out_of_range("index");
  return index;
}

// y[i] = x[indices[i]], rows of x.
Call take_call(Shape shape, const Shape& x_shape) {
  Call call;
  call.shape = std::move(shape);
  const int64_t rows = x_shape[0];
  call.run = [rows](const Operands& given, const Array& y, Extras&) {
    const auto* const indices = static_cast<const int64_t*>(given[1]->data());
    const int64_t count = given[1]->size();
    const int64_t width = static_cast<int64_t>(y.bytes()) / count;
    for (int64_t i = 0; i < count; ++i) row_of(indices[i], rows);
    const auto* const source = static_cast<const char*>(given[0]->data());
    auto* const target = static_cast<char*>(y.data());
    over(count, std::max<int64_t>(kCopiedBytes / width, 1), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        std::memcpy(target + i * width, source + row_of(indices[i], rows) * width,
                    static_cast<size_t>(width));
    });
  };
  // Rows that were taken several times are added in the order of the indices.
  call.gradient = [rows](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    const Array& gradient = gradients.make(0);
    std::memset(gradient.data(), 0, gradient.bytes());
    const auto* const indices = static_cast<const int64_t*>(kept.operands[1]->data());
    const int64_t count = kept.operands[1]->size(), width = grad_y.size() / count;
    const auto add = [&]<class T>(T) {
      const T* const source = static_cast<const T*>(grad_y.data());
      T* const target = static_cast<T*>(gradient.data());
      over(width, std::max<int64_t>(kRange / count, 64), [=](int64_t begin, int64_t end) {
        for (int64_t i = 0; i < count; ++i) {
          T* const row = target + row_of(indices[i], rows) * width;
          for (int64_t j = begin; j < end; ++j) row[j] += source[i * width + j];
        }
      });
    };
    grad_y.type() == ElementType::f64 ? add(double{}) : add(float{});
  };
  call.keeps = operand_bits(1);
  call.compiled = operand_bits(0);
  return call;
}

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
             py::arg("shape"), py::arg("x_shape"), py::arg("pairs"), py::arg("value"));
  module.def("masked", &masked, "x[mask] of one shape: float32, float64, int64 or booleans",
             py::arg("x"), py::arg("mask"));
  module.def("take_call", &take_call, "operands: x, indices of its rows", py::arg("shape"),
             py::arg("x_shape"));
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
