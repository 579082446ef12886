// Sums of integers and counts of booleans, which the kernels of floats leave out. Exact in any
// order: modulo 2^64, as NumPy's, and without a sign, whose overflow C++ does not define.
#include "bindings/broadcast.h"
#include "bindings/calls.h"
#include "bindings/common.h"
#include "bindings/reductions.h"

namespace lamina::bindings {
namespace {

uint64_t sum_of(const uint64_t* x, int64_t count) {
  constexpr int64_t kChains = 16;
  uint64_t chains[kChains] = {}, sum = 0;
  int64_t i = 0;
  for (; i + kChains <= count; i += kChains)
    for (int64_t j = 0; j < kChains; ++j) chains[j] += x[i + j];
  for (const uint64_t chain : chains) sum += chain;
  for (; i < count; ++i) sum += x[i];
  return sum;
}

constexpr int64_t kCounted = 255;  // that bytes can count

uint64_t sum_of(const uint8_t* x, int64_t count) {
  constexpr int64_t kLine = 64;
  uint64_t sum = 0;
  int64_t i = 0;
  while (i + kLine <= count) {
    uint8_t counts[kLine] = {};
    for (int64_t row = 0; row < kCounted && i + kLine <= count; ++row, i += kLine)
      for (int64_t j = 0; j < kLine; ++j)
        counts[j] = static_cast<uint8_t>(counts[j] + (x[i + j] != 0));
    for (const uint8_t one : counts) sum += one;
  }
  for (; i < count; ++i) sum += x[i] != 0;
  return sum;
}

// y[j] += x[row][j]
void add_rows(const uint64_t* x, int64_t rows, int64_t distance, int64_t count, uint64_t* y) {
  for (int64_t row = 0; row < rows; ++row, x += distance)
    for (int64_t j = 0; j < count; ++j) y[j] += x[j];
}

constexpr int64_t kWidth = 1024;  // of columns a task

void add_rows(const uint8_t* x, int64_t rows, int64_t distance, int64_t count, uint64_t* y) {
  for (int64_t row = 0; row < rows;) {
    uint8_t counts[kWidth] = {};
    for (const int64_t end = std::min(rows, row + kCounted); row < end; ++row)
      for (int64_t j = 0; j < count; ++j)
        counts[j] = static_cast<uint8_t>(counts[j] + (x[row * distance + j] != 0));
    for (int64_t j = 0; j < count; ++j) y[j] += counts[j];
  }
}

template <class X>
void sum_columns(const Runs& runs, const X* x, uint64_t* y) {
  const int64_t width = std::min(runs.inner, kWidth), tiles = (runs.inner + width - 1) / width;
  const int64_t grain = std::max<int64_t>(kRange / std::max<int64_t>(runs.n * width, 1), 1);
  over(runs.outer * tiles, grain, [=](int64_t begin, int64_t end) {
    for (int64_t place = begin; place < end; ++place) {
      const int64_t outer = place / tiles, column = place % tiles * width;
      const int64_t count = std::min(width, runs.inner - column);
      uint64_t* const sums = y + outer * runs.inner + column;
      std::fill_n(sums, count, 0);
      add_rows(x + outer * runs.n * runs.inner + column, runs.n, runs.inner, count, sums);
    }
  });
}

// Lines in pieces: of their rows, or of the one row they have.
template <class X>
void sum_lines(const Runs& runs, const X* x, uint64_t* y) {
  const int64_t length = runs.length(), lines = runs.lines();
  const int64_t unit = runs.n != 1 ? runs.m : 1, units = runs.n != 1 ? runs.n : runs.m;
  const int64_t most = std::max<int64_t>(2 * kRange / std::max<int64_t>(unit, 1), 1);
  const int64_t pieces = std::max<int64_t>((units + most - 1) / most, 1);
  const auto piece_of = [=](int64_t line, int64_t piece) {
    const int64_t from = piece * most, to = std::min(units, from + most);
    if (runs.n == 1) return sum_of(x + line * length + from, to - from);
    uint64_t sum = 0;
    for (int64_t row = from; row < to; ++row) sum += sum_of(x + runs.at(line, row), runs.m);
    return sum;
  };
  std::vector<uint64_t> parts(static_cast<size_t>(pieces > 1 ? lines * pieces : 0));
  uint64_t* const sums = pieces > 1 ? parts.data() : y;
  const int64_t grain = std::max<int64_t>(kRange / std::max<int64_t>(length / pieces, 1), 1);
  over(lines * pieces, grain, [=](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task)
      sums[task] = piece_of(task / pieces, task % pieces);
  });
  if (pieces > 1)
    for (int64_t line = 0; line < lines; ++line) y[line] = sum_of(sums + line * pieces, pieces);
}

template <class X>
void sum(const Runs& runs, const X* x, uint64_t* y) {
  runs.m == 1 && runs.n != 1 ? sum_columns(runs, x, y) : sum_lines(runs, x, y);
}

Call integer_sum_call(std::vector<py::ssize_t> shape, const std::vector<py::ssize_t>& x_shape,
                      const std::vector<bool>& reduced) {
  Runs runs;
  if (!runs.read(x_shape, reduced)) throw std::logic_error("internal: axes in too many runs");
  Call call;
  call.shape = std::move(shape);
  call.constant = true;
  call.run = [=](const Operands& given, const Array& y, Extras&) {
    const Array& x = *given[0];
    expect(x.size() == runs.size(), "x", "has another size");
    auto* const sums = reinterpret_cast<uint64_t*>(checked_data<int64_t>(y, "y", runs.lines()));
    if (x.type() == ElementType::boolean)
      sum(runs, static_cast<const uint8_t*>(x.data()), sums);
    else
      sum(runs, reinterpret_cast<uint64_t*>(checked_data<int64_t>(x, "x", x.size())), sums);
  };
  return call;
}

}  // namespace

LAMINA_BINDINGS(integer_sums) {
  module.def("integer_sum_call", &integer_sum_call, "operands: x, of int64 or booleans",
             py::arg("shape"), py::arg("x_shape"), py::arg("reduced"));
}

}  // namespace lamina::bindings
