// Sums in double, and extrema with the first index that has them; NaN is the extreme of all.
//
// Partitioning  lines, or columns and blocks of rows, of about kRange elements: by the shape alone.
// Numerics      a line is added in blocks of eight chains; rows are added in order within a block,
//               and the blocks in order. The sum is rounded to the dtype once.
#include "bindings/reductions.h"

#include <cmath>
#include <cstring>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "bindings/numpy_loops.h"

namespace lamina::bindings {

bool Runs::read(const std::vector<py::ssize_t>& shape, const std::vector<bool>& reduced) {
  *this = {};
  int64_t* const runs[] = {&outer, &n, &inner, &m};
  int run = 0;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] == 1) continue;
    while (((run & 1) != 0) != reduced[axis])
      if (++run > 3) return false;
    *runs[run] *= shape[axis];
  }
  if (inner == 1) m = n * m, n = 1;  // nothing lies between
  return true;
}

bool Runs::read_broadcast(const std::vector<py::ssize_t>& shape,
                          const std::vector<py::ssize_t>& operand) {
  std::vector<bool> reduced(shape.size(), true);
  const size_t missing = shape.size() - operand.size();
  for (size_t axis = missing; axis < shape.size(); ++axis)
    reduced[axis] = operand[axis - missing] != shape[axis];
  return read(shape, reduced);
}

namespace {

// The sum in double, in blocks of eight chains: its order depends on n alone.
template <class T>
double sum_of(const T* x, int64_t n) {
  constexpr int64_t kBlock = 1024, kChains = 8;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = std::min(kBlock, n - begin), whole = count / kChains * kChains;
    double chains[kChains] = {}, tail = 0;
    for (int64_t i = 0; i < whole; i += kChains)
      for (int64_t j = 0; j < kChains; ++j) chains[j] += static_cast<double>(x[begin + i + j]);
    for (int64_t i = whole; i < count; ++i) tail += static_cast<double>(x[begin + i]);
    total += ((chains[0] + chains[1]) + (chains[2] + chains[3])) +
             ((chains[4] + chains[5]) + (chains[6] + chains[7])) + tail;
  }
  return total;
}

int64_t grain(int64_t elements) {
  return std::max<int64_t>(kRange / std::max<int64_t>(elements, 1), 1);
}

// One line of many elements.
template <class T>
double sum_of_parts(const T* x, int64_t n) {
  std::vector<double> parts(static_cast<size_t>((n + kRange - 1) / kRange));
  over(n, kRange, [&](int64_t begin, int64_t end) {
    parts[static_cast<size_t>(begin / kRange)] = sum_of(x + begin, end - begin);
  });
  return sum_of(parts.data(), static_cast<int64_t>(parts.size()));
}

// x [outer, n, inner, m] with lines of m.
template <class T>
void sum_lines(const Runs& runs, const T* x, T* sums) {
  const int64_t lines = runs.outer * runs.inner, n = runs.n, m = runs.m;
  if (lines == 1 && n == 1 && m > kRange) {
    *sums = static_cast<T>(sum_of_parts(x, m));
    return;
  }
  over(lines, grain(n * m), [=, inner = runs.inner](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t first = line / inner * n * inner + line % inner;
      double sum = 0;
      for (int64_t r = 0; r < n; ++r) sum += sum_of(x + (first + r * inner) * m, m);
      sums[line] = static_cast<T>(sum);
    }
  });
}

// x [outer, n, inner], by columns and blocks of rows.
template <class T>
void sum_rows(const Runs& runs, const T* x, T* sums) {
  constexpr int64_t kColumns = 256;
  const int64_t n = runs.n, inner = runs.inner, width = std::min(inner, kColumns);
  const int64_t parts = (inner + width - 1) / width, rows = grain(width);
  const int64_t blocks = std::max<int64_t>((n + rows - 1) / rows, 1);
  std::vector<double> partial(static_cast<size_t>(blocks > 1 ? runs.outer * blocks * inner : 0));
  const int64_t cost = std::min(n, rows) * width;
  over(runs.outer * blocks * parts, grain(cost), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t column = task % parts * width, block = task / parts % blocks;
      const int64_t outer = task / parts / blocks, count = std::min(width, inner - column);
      double total[kColumns] = {};
      const T* row = x + (outer * n + block * rows) * inner + column;
      int64_t left = std::min(n - block * rows, rows);
      const auto at = [&](int64_t r, int64_t j) { return static_cast<double>(row[r * inner + j]); };
      for (; left >= 4; left -= 4, row += 4 * inner)
        for (int64_t j = 0; j < count; ++j)
          total[j] = total[j] + at(0, j) + at(1, j) + at(2, j) + at(3, j);
      for (; left > 0; --left, row += inner)
        for (int64_t j = 0; j < count; ++j) total[j] += at(0, j);
      if (blocks > 1)
        std::copy_n(total, count, partial.data() + (outer * blocks + block) * inner + column);
      else
        for (int64_t j = 0; j < count; ++j)
          sums[outer * inner + column + j] = static_cast<T>(total[j]);
    }
  });
  if (blocks > 1)
    for (int64_t outer = 0; outer < runs.outer; ++outer)
      for (int64_t j = 0; j < inner; ++j) {
        double total = 0;
        for (int64_t block = 0; block < blocks; ++block)
          total += partial[static_cast<size_t>((outer * blocks + block) * inner + j)];
        sums[outer * inner + j] = static_cast<T>(total);
      }
}

// y [outer, inner] shown along n and m.
template <class T>
void spread(const Runs& runs, const T* y, T divisor, T* x) {
  const int64_t n = runs.n, inner = runs.inner, m = runs.m;
  if (n == 1)  // stretches of lines, which may be long
    return over(runs.outer * inner * m, kRange, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        const int64_t line = i / m, stop = std::min(end, (line + 1) * m);
        std::fill(x + i, x + stop, y[line] / divisor);
        i = stop;
      }
    });
  over(runs.outer * n, grain(inner * m), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* const source = y + r / n * inner;
      T* const row = x + r * inner * m;
      for (int64_t i = 0; i < inner; ++i) std::fill_n(row + i * m, m, source[i] / divisor);
    }
  });
}

template <class Body>
void visit(ElementType type, Body&& body) {
  if (type == ElementType::f64)
    body(double{});
  else if (type == ElementType::i64)
    body(int64_t{});
  else
    body(float{});
}

// ---- Extrema

// values [outer, inner] of x, where n or m is 1.
void extremes(const Runs& runs, const Loops& loops, const Array& x, const Array& values) {
  const ElementType type = x.type();
  const auto bytes = static_cast<int64_t>(x.bytes()) / x.size();
  const auto* const source = static_cast<const char*>(x.data());
  auto* const result = static_cast<char*>(values.data());
  const auto line_of = [=, &loops](const char* line, int64_t count, char* y) {
    std::memcpy(y, line, static_cast<size_t>(bytes));
    loops.fold(type, line + bytes, y, count - 1, true);
  };
  const int64_t lines = runs.outer * (runs.n == 1 ? runs.inner : 1), n = runs.n, m = runs.m;
  if (n == 1 && lines == 1 && m > kRange) {
    std::vector<char> parts(static_cast<size_t>((m + kRange - 1) / kRange * bytes));
    over(m, kRange, [&](int64_t begin, int64_t end) {
      line_of(source + begin * bytes, end - begin, parts.data() + begin / kRange * bytes);
    });
    return line_of(parts.data(), static_cast<int64_t>(parts.size()) / bytes, result);
  }
  if (n == 1)
    return over(lines, grain(m), [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) line_of(source + i * m * bytes, m, result + i * bytes);
    });
  constexpr int64_t kColumns = 1024;
  const int64_t inner = runs.inner, parts = (inner + kColumns - 1) / kColumns;
  over(runs.outer * parts, grain(n * std::min(inner, kColumns)),
       [=, &loops](int64_t begin, int64_t end) {
         for (int64_t task = begin; task < end; ++task) {
           const int64_t outer = task / parts, column = task % parts * kColumns;
           const int64_t count = std::min(kColumns, inner - column);
           const char* const first = source + (outer * n * inner + column) * bytes;
           char* const y = result + (outer * inner + column) * bytes;
           std::memcpy(y, first, static_cast<size_t>(count * bytes));
           for (int64_t r = 1; r < n; ++r)
             loops.fold(type, first + r * inner * bytes, y, count, false);
         }
       });
}

constexpr auto kSame = [](auto a, auto b) { return a == b || (a != a && b != b); };

// The first element of the row that equals the value, or is NaN if the value is; there is one.
template <class T>
int64_t first_of(const T* row, int64_t m, T value) {
  constexpr int64_t kBlock = 64;
  const auto search = [=](auto fits) {
    int64_t i = 0;
    for (; i + kBlock <= m; i += kBlock) {
      std::conditional_t<sizeof(T) == 4, int32_t, int64_t> any = 0;
      for (int64_t j = 0; j < kBlock; ++j) any += fits(row[i + j]);
      if (any != 0) break;
    }
    while (!fits(row[i])) ++i;
    return i;
  };
  if (value != value) return search([](T x) { return x != x; });
  return search([value](T x) { return x == value; });
}

// The first index of each value.
template <class T>
void find(const Runs& runs, const T* x, const T* values, int64_t* indices) {
  const int64_t n = runs.n, inner = runs.inner, m = runs.m;
  if (n == 1)
    return over(runs.outer * inner, grain(m), [=](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line)
        indices[line] = first_of(x + line * m, m, values[line]);
    });
  over(runs.outer, grain(n * inner), [=](int64_t begin, int64_t end) {
    for (int64_t outer = begin; outer < end; ++outer) {
      const T *const rows = x + outer * n * inner, *const value = values + outer * inner;
      int64_t* const index = indices + outer * inner;
      std::fill_n(index, inner, n);
      for (int64_t r = n; r-- > 0;)
        for (int64_t j = 0; j < inner; ++j)
          index[j] = kSame(rows[r * inner + j], value[j]) ? r : index[j];
    }
  });
}

// The gradient of each value goes to the element with its index.
template <class T>
void scatter(const Runs& runs, const T* grad_y, const int64_t* indices, T* grad_x) {
  const int64_t length = runs.n * runs.m, inner = runs.n == 1 ? 1 : runs.inner;
  const int64_t lines = runs.outer * runs.inner;
  std::fill_n(grad_x, lines * length, T{0});
  for (int64_t i = 0; i < lines; ++i)
    grad_x[(i / inner * length + indices[i]) * inner + i % inner] = grad_y[i];
}

// Equal elements share the gradient.
template <class T>
void share(const Runs& runs, const T* x, const T* values, const T* grad_y, T* grad_x) {
  const int64_t length = runs.n * runs.m, inner = runs.n == 1 ? 1 : runs.inner;
  over(runs.outer * runs.inner, grain(length), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / inner * length * inner + i % inner;
      const T value = values[i];
      int64_t count = 0;
      for (int64_t k = 0; k < length; ++k) count += kSame(x[first + k * inner], value);
      const T part = grad_y[i] / static_cast<T>(count);
      for (int64_t k = 0; k < length; ++k)
        grad_x[first + k * inner] = part * static_cast<T>(kSame(x[first + k * inner], value));
    }
  });
}

const Loops& loops_of(const std::string& op) {
  return Loops::of(op == "amin" || op == "min" || op == "argmin" ? "minimum" : "maximum");
}

Runs runs_of(const std::vector<py::ssize_t>& shape, const std::vector<bool>& reduced) {
  Runs runs;
  if (!runs.read(shape, reduced)) throw std::logic_error("internal: axes in too many runs");
  return runs;
}

// op: amax, amin, max, min, argmax, argmin
Call extreme_call(std::vector<py::ssize_t> shape, const std::string& op,
                  const std::vector<py::ssize_t>& x_shape, const std::vector<bool>& reduced) {
  const Runs runs = runs_of(x_shape, reduced);
  const Loops* const loops = &loops_of(op);
  Call call;
  call.shape = std::move(shape);
  if (op == "amax" || op == "amin") {
    call.run = [=](const Operands& given, const Array& y, Extras&) {
      extremes(runs, *loops, *given[0], y);
    };
    call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
      visit(grad_y.type(), [&]<class T>(T) {
        share(runs, static_cast<const T*>(kept.operands[0]->data()),
              static_cast<const T*>(kept.result.data()), static_cast<const T*>(grad_y.data()),
              static_cast<T*>(gradients.make(0).data()));
      });
    };
    call.keeps = operand_bits(0) | kResult;
    return call;
  }
  const bool with_values = op == "max" || op == "min";
  call.second = with_values, call.constant = !with_values;
  call.run = [=](const Operands& given, const Array& y, Extras& extras) {
    const Array& x = *given[0];
    const auto other = [&](ElementType type) {
      Array array;
      array.load(new_array_or_throw(shape_of(y.object()), type));
      return array;
    };
    const Array values = with_values ? y : other(x.type());
    const Array indices = with_values ? other(ElementType::i64) : y;
    extremes(runs, *loops, x, values);
    visit(x.type(), [&]<class T>(T) {
      find(runs, static_cast<const T*>(x.data()), static_cast<const T*>(values.data()),
           static_cast<int64_t*>(indices.data()));
    });
    if (with_values) extras[0] = indices;
  };
  if (with_values)
    call.gradient = [=](const Kept& kept, const Array& grad_y, Gradients& gradients) {
      visit(grad_y.type(), [&]<class T>(T) {
        scatter(runs, static_cast<const T*>(grad_y.data()),
                static_cast<const int64_t*>(kept.extras[0].data()),
                static_cast<T*>(gradients.make(0).data()));
      });
    };
  return call;
}

// count: what the sum is divided by, for a mean.
Call sum_call(std::vector<py::ssize_t> shape, const std::vector<py::ssize_t>& x_shape,
              const std::vector<bool>& reduced, double count) {
  const Runs runs = runs_of(x_shape, reduced);
  return {std::move(shape),
          [=](const Operands& given, const Array& y, Extras&) {
            sum_runs(runs, *given[0], y);
            if (count == 1) return;
            visit(y.type(), [&]<class T>(T) {
              T* const sums = static_cast<T*>(y.data());
              for (int64_t i = 0; i < y.size(); ++i) sums[i] /= static_cast<T>(count);
            });
          },
          [=](const Kept&, const Array& grad_y, Gradients& gradients) {
            visit(grad_y.type(), [&]<class T>(T) {
              spread(runs, static_cast<const T*>(grad_y.data()), static_cast<T>(count),
                     static_cast<T*>(gradients.make(0).data()));
            });
          }};
}

}  // namespace

void sum_runs(const Runs& runs, const Array& x, const Array& sums) {
  const int64_t lines = runs.outer * runs.inner, elements = lines * runs.n * runs.m;
  if (lines == 0) return;
  const auto sum = [&]<class T>(T) {
    const T* const source = checked_data<T>(x, "x", elements);
    T* const result = checked_data<T>(sums, "sums", lines);
    runs.m == 1 && runs.n > 1 ? sum_rows(runs, source, result) : sum_lines(runs, source, result);
  };
  sums.type() == ElementType::f64 ? sum(double{}) : sum(float{});
}

LAMINA_BINDINGS(reductions) {
  module.def(
      "in_runs",
      [](const std::vector<py::ssize_t>& shape, const std::vector<bool>& reduced) {
        return Runs().read(shape, reduced);
      },
      "Whether the reduced axes form at most two runs that the loops take", py::arg("shape"),
      py::arg("reduced"));
  module.def(
      "sum_axes",
      [](const Array& x, const Array& sums, const std::vector<py::ssize_t>& shape,
         const std::vector<bool>& reduced) { sum_runs(runs_of(shape, reduced), x, sums); },
      "sums of x over the reduced axes, which are in_runs", py::arg("x"), py::arg("sums"),
      py::arg("shape"), py::arg("reduced"));
  module.def("sum_call", &sum_call, "operands: x", py::arg("shape"), py::arg("x_shape"),
             py::arg("reduced"), py::arg("count"));
  module.def("extreme_call", &extreme_call, "operands: x", py::arg("shape"), py::arg("op"),
             py::arg("x_shape"), py::arg("reduced"));
}

}  // namespace lamina::bindings
