// Elements by integers: rows and single elements, sums of rows, codes.
//
// Gradients     elements that were taken several times are added in the order of the indices.
// Partitioning  a task owns what it writes: a range of the rows of a gradient, for which it reads
//               all indices, or a range of lines that no index leaves.
#include <algorithm>
#include <atomic>
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

constexpr int64_t kTaskBytes = 1 << 17;
constexpr int64_t kAhead = 3, kFetched = 512;  // rows, and bytes of each, that are fetched early

// The elements as words of their size.
template <class Body>
void visit_words(const Array& x, Body&& body) {
  switch (x.type()) {
    case ElementType::f32:
      return body(uint32_t{});
    case ElementType::boolean:
      return body(uint8_t{});
    default:
      return body(uint64_t{});
  }
}

int64_t product(const Shape& shape, size_t begin, size_t end) {
  int64_t product = 1;
  for (size_t axis = begin; axis < end; ++axis) product *= shape[axis];
  return product;
}

// ---- Rows: y[o, i] = x[o, first[i], second[i], ...]

struct Rows {
  int64_t outer, rows, width;    // of x; `rows` is the product of the axes that have indices
  std::vector<int64_t> extents;  // of those axes
  bool from_end;                 // whether negative indices count from the end

  // The row of each place. Throws std::out_of_range.
  Array find(const Operands& given) const {
    const int64_t count = given[1]->size();
    const Array found = new_vector(count, ElementType::i64);
    auto* const row = static_cast<int64_t*>(found.data());
    std::atomic<bool> good = true;
    over(count, kRange, [&](int64_t begin, int64_t end) {
      uint64_t signs = 0;  // of the indices, and of the places that are left behind them
      for (size_t axis = 0; axis < extents.size(); ++axis) {
        const auto* const index = static_cast<const int64_t*>(given[axis + 1]->data());
        const auto extent = static_cast<uint64_t>(extents[axis]), lift = from_end ? extent : 0;
        const auto put = [=, &signs](const auto& rows_before) {
          for (int64_t i = begin; i < end; ++i) {
            const uint64_t at =
                static_cast<uint64_t>(index[i]) + (static_cast<uint64_t>(index[i] >> 63) & lift);
            signs |= at | (extent - 1 - at);
            row[i] = static_cast<int64_t>(rows_before(i) + at);
          }
        };
        if (axis == 0)
          put([](int64_t) { return uint64_t{0}; });
        else
          put([=](int64_t i) { return static_cast<uint64_t>(row[i]) * extent; });
      }
      if (signs >> 63 != 0) good = false;
    });
    if (!good) throw std::out_of_range("index");
    return found;
  }
};

// Calls copy(from, to, later): which row of x, of all, becomes which one of y, and which is soon.
template <class Copy>
void each_row(const Rows& rows, const int64_t* row, int64_t count, int64_t grain,
              const Copy& copy) {
  over(rows.outer * count, std::max<int64_t>(grain, 1), [=, &copy](int64_t begin, int64_t end) {
    for (int64_t to = begin; to < end;) {
      const int64_t o = to / count, first = o * count, stop = std::min(end, first + count);
      for (; to < stop; ++to) {
        const int64_t ahead = std::min(to + kAhead, stop - 1) - first;
        copy(o * rows.rows + row[to - first], to, o * rows.rows + row[ahead]);
      }
    }
  });
}

void take(const Rows& rows, const Operands& given, const Array& y) {
  const Array found = rows.find(given);
  const auto* const row = static_cast<const int64_t*>(found.data());
  const int64_t count = found.size();
  if (rows.width == 1)
    return visit_words(y, [&]<class W>(W) {
      const W* const source = static_cast<const W*>(given[0]->data());
      W* const target = static_cast<W*>(y.data());
      each_row(rows, row, count, kRange,
               [=](int64_t from, int64_t to, int64_t) { target[to] = source[from]; });
    });
  const int64_t bytes = static_cast<int64_t>(y.bytes()) / (rows.outer * count);
  const auto* const source = static_cast<const char*>(given[0]->data());
  auto* const target = static_cast<char*>(y.data());
  each_row(rows, row, count, kTaskBytes / bytes, [=](int64_t from, int64_t to, int64_t later) {
    for (int64_t line = 0; line < std::min(bytes, kFetched); line += 64)
      __builtin_prefetch(source + later * bytes + line);
    std::memcpy(target + to * bytes, source + from * bytes, static_cast<size_t>(bytes));
  });
}

constexpr int64_t kMostTasks = 16;

// target [rows, width] = 0, and then row[i] of it += scale(i) * source(i) in the order of i; -1 is
// no row. As many tasks as are worth that each reads all of `row`, but at most `most`.
template <class T, class Source, class Scale>
void add_rows(const int64_t* row, int64_t count, int64_t rows, int64_t width, T* target,
              int64_t most, const Source& source, const Scale& scale) {
  const int64_t worth = (count + rows) * width / std::max(4 * count, kRange);
  const int64_t tasks = std::clamp<int64_t>(worth, 1, most);
  over(rows, (rows + tasks - 1) / tasks, [&, target](int64_t begin, int64_t end) {
    std::memset(target + begin * width, 0, static_cast<size_t>((end - begin) * width) * sizeof(T));
    for (int64_t i = 0; i < count; ++i) {
      if (static_cast<uint64_t>(row[i] - begin) >= static_cast<uint64_t>(end - begin)) continue;
      const T* const from = source(i);
      T* const to = target + row[i] * width;
      const T factor = scale(i);
      for (int64_t j = 0; j < width; ++j) to[j] += factor * from[j];
    }
  });
}

void give_back_rows(const Rows& rows, int64_t left_out, const Kept& kept, const Array& grad_y,
                    const Array& gradient) {
  const Array found = rows.find(kept.operands);
  auto* const row = static_cast<int64_t*>(found.data());
  const int64_t count = found.size(), width = rows.width, all = rows.rows;
  if (left_out >= 0) std::replace(row, row + count, left_out, int64_t{-1});
  visit_float(grad_y, [&]<class T>(T) {
    const T* const source = static_cast<const T*>(grad_y.data());
    T* const target = static_cast<T*>(gradient.data());
    const auto one = [](int64_t) { return T(1); };
    const auto slice = [=](int64_t o, int64_t tasks) {
      add_rows(
          row, count, all, width, target + o * all * width, tasks,
          [=](int64_t i) { return source + (o * count + i) * width; }, one);
    };
    if (rows.outer < kMostTasks) {
      for (int64_t o = 0; o < rows.outer; ++o) slice(o, kMostTasks);
      return;
    }
    over(rows.outer, std::max<int64_t>(kRange / ((count + all) * width), 1),
         [&](int64_t begin, int64_t end) {
           for (int64_t o = begin; o < end; ++o) slice(o, 1);
         });
  });
}

// left_out: the row that gets no gradient; -1: none.
Call take_call(Shape shape, const Shape& x_shape, size_t outer, size_t indexed, bool from_end,
               int64_t left_out) {
  const size_t inner = outer + indexed;
  expect(indexed >= 1 && indexed < kMaxOperands && inner <= x_shape.size(), "indices", "are many");
  const Rows rows{product(x_shape, 0, outer),
                  product(x_shape, outer, inner),
                  product(x_shape, inner, x_shape.size()),
                  {x_shape.begin() + static_cast<std::ptrdiff_t>(outer),
                   x_shape.begin() + static_cast<std::ptrdiff_t>(inner)},
                  from_end};
  Call call;
  call.shape = std::move(shape);
  call.run = [rows](const Operands& given, const Array& y, Extras&) { take(rows, given, y); };
  call.gradient = [rows, left_out](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    give_back_rows(rows, left_out, kept, grad_y, gradients.make(0));
  };
  call.copies = true;
  for (size_t i = 1; i <= indexed; ++i) call.keeps |= operand_bits(i);
  call.compiled = call.differentiable = operand_bits(0);
  return call;
}

// ---- Bags: sums of rows

// The indices of each bag, from bound(bag) to bound(bag + 1).
struct Bags {
  const int64_t *index, *offset = nullptr;
  int64_t total, bags, offsets = 0, rows, left_out;
  bool mean;

  // Throws std::out_of_range for what Python refuses.
  Bags(const Operands& given, int64_t bags, int64_t rows, int64_t left_out, bool mean)
      : index(static_cast<const int64_t*>(given[1]->data())),
        total(given[1]->size()),
        bags(bags),
        rows(rows),
        left_out(left_out),
        mean(mean) {
    if (given[2])
      offset = static_cast<const int64_t*>(given[2]->data()), offsets = given[2]->size();
    bool good = bound(0) == 0 && bound(bags) <= total;
    for (int64_t bag = 0; bag < bags; ++bag) good &= bound(bag) <= bound(bag + 1);
    uint64_t signs = 0;  // of the indices, and of the rows that are left behind them
    for (int64_t i = 0; i < total; ++i) {
      const auto at = static_cast<uint64_t>(index[i]);
      signs |= at | (static_cast<uint64_t>(rows - 1) - at);
    }
    good &= signs >> 63 == 0;
    if (!good) throw std::out_of_range("bags");
  }

  int64_t bound(int64_t bag) const {
    if (offset == nullptr) return bag * (total / bags);
    return bag < offsets ? offset[bag] : total;
  }
  bool counts(int64_t i) const { return index[i] != left_out; }
  // Of the sum of a bag's rows.
  double divisor(int64_t bag) const {
    if (!mean) return 1;
    const int64_t begin = bound(bag), end = bound(bag + 1);
    const int64_t out = std::count(index + begin, index + end, left_out);
    return static_cast<double>(std::max<int64_t>(end - begin - out, 1));
  }
  // Calls body(begin, end) for ranges of bags whose rows are that wide.
  template <class Body>
  void ranges(int64_t width, const Body& body) const {
    over(bags, std::max<int64_t>(kRange * bags / ((total + bags) * width), 1), body);
  }
};

Call bag_call(Shape shape, int64_t rows, bool mean, int64_t left_out) {
  const int64_t bags = shape[0], width = shape[1];
  Call call;
  call.shape = std::move(shape);
  call.run = [=](const Operands& given, const Array& y, Extras&) {
    const Bags all(given, bags, rows, left_out, mean);
    visit_float(y, [&]<class T>(T) {
      const T* const weight = static_cast<const T*>(given[0]->data());
      T* const result = static_cast<T*>(y.data());
      constexpr int64_t kTogether = 4, kLine = 64, kFurther = 8;
      all.ranges(width, [&all, weight, result, width](int64_t begin, int64_t end) {
        for (int64_t bag = begin; bag < end; ++bag) {
          T* const to = result + bag * width;
          std::fill_n(to, width, T(0));
          const T* rows[kTogether];
          int64_t found = 0;
          const auto add = [&](int64_t count) {
            for (int64_t k = 0; k < count; ++k)
              for (int64_t j = 0; j < width; ++j) to[j] += rows[k][j];
          };
          for (int64_t i = all.bound(bag); i < all.bound(bag + 1); ++i) {
            if (!all.counts(i)) continue;
            rows[found++] = weight + all.index[i] * width;
            const T* const soon = weight + all.index[std::min(i + kFurther, all.total - 1)] * width;
            for (int64_t j = 0; j < width; j += kLine / static_cast<int64_t>(sizeof(T)))
              __builtin_prefetch(soon + j);
            if (found < kTogether) continue;
            for (int64_t j = 0; j < width; ++j)
              to[j] = to[j] + rows[0][j] + rows[1][j] + rows[2][j] + rows[3][j];
            found = 0;
          }
          add(found);
          const auto divisor = static_cast<T>(all.divisor(bag));
          if (divisor != 1)
            for (int64_t j = 0; j < width; ++j) to[j] /= divisor;
        }
      });
    });
  };
  call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    const Bags all(kept.operands, bags, rows, left_out, mean);
    const int64_t count = all.bound(bags);
    const Array &gradient = gradients.make(0), rows_of = new_vector(count, ElementType::i64),
                bags_of = new_vector(count, ElementType::i64),
                scales = new_vector(bags, ElementType::f64);
    auto *const row = static_cast<int64_t*>(rows_of.data()), *const bag_of = static_cast<int64_t*>(
                                                                 bags_of.data());
    auto* const scale = static_cast<double*>(scales.data());
    all.ranges(1, [&all, row, bag_of, scale](int64_t begin, int64_t end) {
      for (int64_t bag = begin; bag < end; ++bag) {
        scale[bag] = 1 / all.divisor(bag);
        for (int64_t i = all.bound(bag); i < all.bound(bag + 1); ++i)
          row[i] = all.counts(i) ? all.index[i] : -1, bag_of[i] = bag;
      }
    });
    visit_float(grad_y, [&]<class T>(T) {
      const T* const source = static_cast<const T*>(grad_y.data());
      add_rows(
          row, count, rows, width, static_cast<T*>(gradient.data()), kMostTasks,
          [=](int64_t i) { return source + bag_of[i] * width; },
          [=](int64_t i) { return static_cast<T>(scale[bag_of[i]]); });
    });
  };
  call.keeps = operand_bits(1, 2);
  call.compiled = call.differentiable = operand_bits(0);
  return call;
}

// ---- Elements: y[i, j] = x[index[i, j], j], and likewise for other axes

// The index array as lines along its last axis, `depth` of them `index_step` apart along the axis
// that is indexed; where that is the last one itself, lines are one element wide.
class Lines {
 public:
  Lines(const Shape& index, const Shape& x, size_t axis) {
    const size_t last = index.size() - 1;
    depth_ = index[axis], extent = x[axis];
    width_ = axis == last ? 1 : index[last];
    int64_t index_step = 1, x_step = 1;
    for (size_t d = index.size(); d-- > 0;) {
      if (d == axis)
        index_step_ = index_step, step = x_step;
      else if (d != last)
        outer_.push_back({index[d], index_step, x_step}), places_ *= index[d];
      index_step *= index[d], x_step *= x[d];
    }
  }

  int64_t extent, step;  // of the indexed axis of x

  // Calls element(i, place, index of it): for the i-th index, where an index of 0 would lead it to.
  // Tasks have no place of x in common. Throws std::out_of_range for an index outside of the axis,
  // when others were called for. x: the elements at the places; those of the next line are fetched,
  // because indices meet them in any order.
  template <class X, class Element>
  void each(const int64_t* index, const X* x, const Element& element) const {
    constexpr int64_t kLine = 64 / sizeof(X);
    const bool dense = step == 1 && extent <= 2 * depth_;
    constexpr int64_t kWidth = 64;  // several lines of the cache
    const int64_t strips = (width_ + kWidth - 1) / kWidth;
    const int64_t work = depth_ * std::min(width_, kWidth);
    std::atomic<bool> good = true;
    over(places_ * strips, std::max<int64_t>(kRange / work, 1), [&](int64_t begin, int64_t end) {
      const Element own = element;  // else its numbers are read anew for each index
      bool inside = true;
      for (int64_t task = begin; task < end; ++task) {
        int64_t place = task / strips, from = 0, at = 0;
        for (const Axis& axis : outer_) {
          from += place % axis.extent * axis.index_step, at += place % axis.extent * axis.x_step;
          place /= axis.extent;
        }
        const int64_t first = task % strips * kWidth, stop = std::min(first + kWidth, width_);
        if (width_ == 1 && dense)
          for (int64_t i = 0; i < extent; i += kLine) __builtin_prefetch(x + at + extent + i);
        const int64_t next = width_ == 1 ? index_step_ : 0;
        if (next == 1)
          inside &=
              run(index, from, 1, depth_, [=](int64_t i, int64_t to) { own(from + i, at, to); });
        else if (next > 1)
          inside &= run(index, from, next, depth_,
                        [=](int64_t i, int64_t to) { own(from + i * next, at, to); });
        else
          for (int64_t d = 0; d < depth_; ++d) {
            const int64_t i = from + d * index_step_ + first;
            inside &= run(index, i, 1, stop - first,
                          [=](int64_t j, int64_t to) { own(i + j, at + first + j, to); });
          }
      }
      if (!inside) good = false;
    });
    if (!good) throw std::out_of_range("index");
  }

 private:
  struct Axis {
    int64_t extent, index_step, x_step;
  };
  // one(0, index), one(1, index), ... for indices `distance` apart, up to one outside of the axis,
  // where it returns false.
  template <class One>
  bool run(const int64_t* index, int64_t first, int64_t distance, int64_t count,
           const One& one) const {
    constexpr int64_t kLine = 64 / sizeof(int64_t);
    if (distance == 1 && count >= 4 * kLine)  // streams end with a page of memory
      for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(index + first + count + i);
    const auto limit = static_cast<uint64_t>(extent);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = index[first + i * distance];
      if (static_cast<uint64_t>(at) >= limit) [[unlikely]]
        return false;
      one(i, at);
    }
    return true;
  }
  std::vector<Axis> outer_;  // innermost first
  int64_t places_ = 1, depth_, width_, index_step_ = 1;
};

Call gather_call(Shape shape, const Shape& x_shape, size_t axis) {
  Call call;
  call.copies = true;
  const Lines lines(shape, x_shape, axis);
  call.shape = std::move(shape);
  call.run = [lines](const Operands& given, const Array& y, Extras&) {
    const auto* const index = static_cast<const int64_t*>(given[1]->data());
    visit_words(y, [&]<class W>(W) {
      const W* const x = static_cast<const W*>(given[0]->data());
      W* const result = static_cast<W*>(y.data());
      lines.each(index, x, [=, step = lines.step](int64_t i, int64_t place, int64_t at) {
        result[i] = x[place + at * step];
      });
    });
  };
  call.gradient = [lines](const Kept& kept, const Array& grad_y, Gradients& gradients) {
    const Array& gradient = gradients.make(0);
    const auto* const index = static_cast<const int64_t*>(kept.operands[1]->data());
    fill_zeros(gradient);
    visit_float(grad_y, [&]<class T>(T) {
      const T* const source = static_cast<const T*>(grad_y.data());
      T* const target = static_cast<T*>(gradient.data());
      lines.each(index, target, [=, step = lines.step](int64_t i, int64_t place, int64_t at) {
        target[place + at * step] += source[i];
      });
    });
  };
  call.keeps = operand_bits(1);
  call.compiled = call.differentiable = operand_bits(0);
  return call;
}

// y = 0, and 1 at each index of the last axis.
Call one_hot_call(Shape shape) {
  Call call;
  const int64_t classes = shape.back();
  call.shape = std::move(shape);
  call.constant = true;
  call.run = [classes](const Operands& given, const Array& y, Extras&) {
    const auto* const index = static_cast<const int64_t*>(given[0]->data());
    auto* const result = static_cast<int64_t*>(y.data());
    std::atomic<bool> good = true;
    over(given[0]->size(), std::max<int64_t>(kRange / classes, 1),
         [=, &good](int64_t begin, int64_t end) {
           std::memset(result + begin * classes, 0,
                       static_cast<size_t>((end - begin) * classes) * sizeof(int64_t));
           for (int64_t i = begin; i < end; ++i)
             if (index[i] >= 0 && index[i] < classes)
               result[i * classes + index[i]] = 1;
             else
               good = false;
         });
    if (!good) throw std::out_of_range("index");
  };
  return call;
}

}  // namespace

LAMINA_BINDINGS(indexing) {
  module.def("take_call", &take_call,
             "operands: x, indices of one shape for as many of its axes as are `indexed`, after\n"
             "`outer` others",
             py::arg("shape"), py::arg("x_shape"), py::arg("outer"), py::arg("indexed"),
             py::arg("from_end"), py::arg("left_out"));
  module.def("bag_call", &bag_call, "operands: weight, indices, offsets or None", py::arg("shape"),
             py::arg("rows"), py::arg("mean"), py::arg("left_out"));
  module.def("gather_call", &gather_call, "operands: x, indices along the axis", py::arg("shape"),
             py::arg("x_shape"), py::arg("axis"));
  module.def("one_hot_call", &one_hot_call, "operands: indices", py::arg("shape"));
}

}  // namespace lamina::bindings
