#include "bindings/elementwise.h"

#include <algorithm>

#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/numpy_array.h"
#include "core/threads.h"

namespace lamina::bindings {
namespace {

constexpr int64_t kRange = int64_t{1} << 15;  // elements a task: its three arrays share an L2

// Calls body(begin, end) over all items, by tasks of `grain` where there is more than one.
template <class Body>
void over(int64_t items, int64_t grain, Body body) {
  if (items <= grain) return body(0, items);
  const py::gil_scoped_release release;
  parallel_ranges(items, grain, body);
}

// y[i] = f(a[i], b[i]); an operand that is shorter than y repeats.
template <class F>
void each(const Array& a, const Array& b, const Array& y, F f) {
  const auto loop = [&]<class T>(T) {
    const int64_t size = y.size(), row = std::min(a.size(), b.size());
    const T* const left = checked_data<T>(a, "a", a.size());
    const T* const right = checked_data<T>(b, "b", b.size());
    T* const result = checked_data<T>(y, "y", size);
    expect(std::max(a.size(), b.size()) == size, "y", "has another size");
    expect(row == size || (row > 0 && size % row == 0), "y", "is no multiple of an operand");
    if (row == size)
      return over(size, kRange, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) result[i] = f(left[i], right[i]);
      });
    const bool left_repeats = a.size() < size;
    const T *const whole = left_repeats ? right : left, *const part = left_repeats ? left : right;
    const auto both = [=](T x, T again) { return left_repeats ? f(again, x) : f(x, again); };
    if (row == 1)
      return over(size, kRange, [=, number = *part](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) result[i] = both(whole[i], number);
      });
    over(size / row, std::max<int64_t>(kRange / row, 1), [=](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t j = 0; j < row; ++j) result[r * row + j] = both(whole[r * row + j], part[j]);
    });
  };
  y.type() == ElementType::f64 ? loop(double{}) : loop(float{});
}

constexpr auto kAdd = [](auto a, auto b) { return a + b; };
constexpr auto kSubtract = [](auto a, auto b) { return a - b; };
constexpr auto kMultiply = [](auto a, auto b) { return a * b; };
constexpr auto kDivide = [](auto a, auto b) { return a / b; };
constexpr auto kNegate = [](auto a, auto) { return -a; };

template <class F>
auto run_each(F f) {
  return [f](const Operands& given, const Array& y, Extras&) { each(*given[0], *given[1], y, f); };
}

void add_gradient(const Kept&, const Array& grad_y, Gradients& gradients) {
  for (int i : {0, 1})
    if (gradients.wanted(i)) gradients.share(i, grad_y);
}

void subtract_gradient(const Kept&, const Array& grad_y, Gradients& gradients) {
  if (gradients.wanted(0)) gradients.share(0, grad_y);
  if (gradients.wanted(1)) each(grad_y, grad_y, gradients.make(1), kNegate);
}

void multiply_gradient(const Kept& kept, const Array& grad_y, Gradients& gradients) {
  for (int i : {0, 1})
    if (gradients.wanted(i)) each(grad_y, *kept.operands[1 - i], gradients.make(i), kMultiply);
}

void divide_gradient(const Kept& kept, const Array& grad_y, Gradients& gradients) {
  const Array& b = *kept.operands[1];
  if (gradients.wanted(0)) each(grad_y, b, gradients.make(0), kDivide);
  if (!gradients.wanted(1)) return;
  const Array& slope = gradients.make(1);
  each(*kept.operands[0], b, slope, [](auto x, auto y) { return (x / y) / y; });
  each(grad_y, slope, slope, [](auto g, auto s) { return -g * s; });
}

// a, b: whether the operand has the shape of the result; the Function sums the gradient of one that
// repeats.
Call arithmetic_call(std::vector<py::ssize_t> shape, const std::string& op, bool a, bool b) {
  Call call{std::move(shape), {}};
  call.compiled = (a ? operand_bits(0) : 0) | (b ? operand_bits(1) : 0);
  if (op == "add") {
    call.run = run_each(kAdd), call.gradient = &add_gradient;
  } else if (op == "sub") {
    call.run = run_each(kSubtract), call.gradient = &subtract_gradient;
  } else if (op == "mul") {
    call.run = run_each(kMultiply), call.gradient = &multiply_gradient;
    call.keeps_for[0] = operand_bits(1), call.keeps_for[1] = operand_bits(0);
  } else if (op == "div") {
    call.run = run_each(kDivide), call.gradient = &divide_gradient;
    call.keeps = operand_bits(1), call.keeps_for[1] = operand_bits(0);
  } else {
    throw std::logic_error("internal: unknown arithmetic " + op);
  }
  return call;
}

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

// sums [lines] of x [lines, n].
void sum_lines(const Array& x, const Array& sums) {
  const auto sum = [&]<class T>(T) {
    const int64_t lines = sums.size(), n = lines == 0 ? 0 : x.size() / lines;
    const T* const source = checked_data<T>(x, "x", lines * n);
    T* const result = checked_data<T>(sums, "sums", lines);
    if (lines > 1 || n <= kRange)
      return over(lines, std::max<int64_t>(kRange / std::max<int64_t>(n, 1), 1),
                  [=](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i)
                      result[i] = static_cast<T>(sum_of(source + i * n, n));
                  });
    std::vector<double> parts(static_cast<size_t>((n + kRange - 1) / kRange));
    over(n, kRange, [&](int64_t begin, int64_t end) {
      parts[static_cast<size_t>(begin / kRange)] = sum_of(source + begin, end - begin);
    });
    result[0] = static_cast<T>(sum_of(parts.data(), static_cast<int64_t>(parts.size())));
  };
  sums.type() == ElementType::f64 ? sum(double{}) : sum(float{});
}

void spread_lines(const Array& grad_y, const Array& result) {
  const auto spread = [&]<class T>(T) {
    const int64_t lines = grad_y.size(), n = lines == 0 ? 0 : result.size() / lines;
    const T* const source = checked_data<T>(grad_y, "grad_y", lines);
    T* const target = checked_data<T>(result, "result", lines * n);
    over(lines * n, kRange, [=](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        const int64_t line = i / n, stop = std::min(end, (line + 1) * n);
        std::fill(target + i, target + stop, source[line]);
        i = stop;
      }
    });
  };
  result.type() == ElementType::f64 ? spread(double{}) : spread(float{});
}

}  // namespace

void add_arrays(PyObject* a, PyObject* b, PyObject* y) {
  Array left, right, result;
  left.load(a), right.load(b), result.load(y);
  each(left, right, result, kAdd);
}

LAMINA_BINDINGS(elementwise) {
  module.def("arithmetic_call", &arithmetic_call, "operands: a, b", py::arg("shape"), py::arg("op"),
             py::arg("a"), py::arg("b"));
  module.def(
      "negate_call",
      [](std::vector<py::ssize_t> shape) {
        return Call{std::move(shape),
                    [](const Operands& given, const Array& y, Extras&) {
                      each(*given[0], *given[0], y, kNegate);
                    },
                    [](const Kept&, const Array& grad_y, Gradients& gradients) {
                      each(grad_y, grad_y, gradients.make(0), kNegate);
                    }};
      },
      "operands: x", py::arg("shape"));
  module.def("sum_lines", &sum_lines, "sums [lines] of x [lines, n]", py::arg("x"),
             py::arg("sums"));
  module.def(
      "sum_call",
      [](std::vector<py::ssize_t> shape) {
        return Call{std::move(shape),
                    [](const Operands& given, const Array& y, Extras&) { sum_lines(*given[0], y); },
                    [](const Kept&, const Array& grad_y, Gradients& gradients) {
                      spread_lines(grad_y, gradients.make(0));
                    }};
      },
      "over the last axes; operands: x", py::arg("shape"));
}

}  // namespace lamina::bindings
