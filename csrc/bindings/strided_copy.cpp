// Method  where the axis along which the source is dense is not the last one of the result, both
// are
//         walked in tiles, so that the lines of either are used whole before they leave the cache;
//         other layouts are copied row by row, as the result has them.
#include "bindings/strided_copy.h"

#include <cstring>

#include "bindings/broadcast.h"
#include "bindings/numpy_array.h"

namespace lamina::bindings {
namespace {

constexpr int kMaxRank = 32;
constexpr int64_t kTile = 32;  // elements a side

// Axes of the result that are neither tiled nor the row.
struct Outer {
  int rank = 0;
  int64_t extent[kMaxRank], from[kMaxRank], to[kMaxRank];  // strides in bytes

  void add(int64_t size, int64_t source, int64_t target) {
    extent[rank] = size, from[rank] = source, to[rank] = target;
    ++rank;
  }
  int64_t places() const {
    int64_t places = 1;
    for (int axis = 0; axis < rank; ++axis) places *= extent[axis];
    return places;
  }
  void find(int64_t place, int64_t& source, int64_t& target) const {
    source = target = 0;
    for (int axis = rank; axis-- > 0; place /= extent[axis]) {
      source += place % extent[axis] * from[axis];
      target += place % extent[axis] * to[axis];
    }
  }
};

// to[i] of kBlock rows = from[j] of as many, transposed in registers.
template <class W>
void transpose_block(const W* from, int64_t from_step, W* to, int64_t to_step) {
  constexpr int kBlock = 16 / static_cast<int>(sizeof(W));
  typedef W Words [[gnu::vector_size(16), gnu::aligned(alignof(W)), gnu::may_alias]];
  Words row[kBlock];
  for (int i = 0; i < kBlock; ++i) row[i] = *reinterpret_cast<const Words*>(from + i * from_step);
  if constexpr (kBlock == 2) {
    *reinterpret_cast<Words*>(to) = Words{row[0][0], row[1][0]};
    *reinterpret_cast<Words*>(to + to_step) = Words{row[0][1], row[1][1]};
  } else {
    const Words low[2] = {__builtin_shufflevector(row[0], row[1], 0, 4, 1, 5),
                          __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5)},
                high[2] = {__builtin_shufflevector(row[0], row[1], 2, 6, 3, 7),
                           __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7)};
    const Words turned[4] = {__builtin_shufflevector(low[0], low[1], 0, 1, 4, 5),
                             __builtin_shufflevector(low[0], low[1], 2, 3, 6, 7),
                             __builtin_shufflevector(high[0], high[1], 0, 1, 4, 5),
                             __builtin_shufflevector(high[0], high[1], 2, 3, 6, 7)};
    for (int i = 0; i < 4; ++i) *reinterpret_cast<Words*>(to + i * to_step) = turned[i];
  }
}

// target[i][j] = source[j][i]: rows of the target follow one another every `to` bytes, those of the
// source every `from`.
template <class W>
void transpose_tile(const char* source, int64_t from, char* target, int64_t to, int64_t rows,
                    int64_t columns) {
  // Lines of either side may all fall into one set of the cache.
  constexpr int64_t kBlock = 16 / static_cast<int64_t>(sizeof(W));
  W tile[kTile][kTile + kBlock];
  int64_t j = 0;
  if constexpr (kBlock <= 4)
    for (; j + kBlock <= columns; j += kBlock) {
      const auto* const line = reinterpret_cast<const W*>(source + j * from);
      const int64_t step = from / static_cast<int64_t>(sizeof(W));
      int64_t i = 0;
      for (; i + kBlock <= rows; i += kBlock)
        transpose_block(line + i, step, tile[i] + j, kTile + kBlock);
      for (; i < rows; ++i)
        for (int64_t k = 0; k < kBlock; ++k) tile[i][j + k] = line[k * step + i];
    }
  for (; j < columns; ++j) {
    const auto* const line = reinterpret_cast<const W*>(source + j * from);
    for (int64_t i = 0; i < rows; ++i) tile[i][j] = line[i];
  }
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(target + i * to, tile[i], static_cast<size_t>(columns) * sizeof(W));
}

// Row after row along the last axis of the result; the others are `outer`.
template <class W>
void copy_rows(const Outer& outer, const char* data, char* result, int64_t columns, int64_t from,
               int64_t to) {
  const auto bytes = static_cast<int64_t>(sizeof(W));
  over(outer.places(), std::max<int64_t>(kRange / columns, 1), [&](int64_t begin, int64_t end) {
    for (int64_t place = begin; place < end; ++place) {
      int64_t source, target;
      outer.find(place, source, target);
      const auto* const line = reinterpret_cast<const W*>(data + source);
      auto* const row = reinterpret_cast<W*>(result + target);
      if (to != bytes)
        for (int64_t j = 0; j < columns; ++j)
          *reinterpret_cast<W*>(result + target + j * to) =
              *reinterpret_cast<const W*>(data + source + j * from);
      else if (from == bytes)
        std::memcpy(row, line, static_cast<size_t>(columns * bytes));
      else if (from == -bytes)  // GCC has vectors for steps it knows
        for (int64_t j = 0; j < columns; ++j) row[j] = line[-j];
      else if (from == 2 * bytes)
        for (int64_t j = 0; j < columns; ++j) row[j] = line[2 * j];
      else
        for (int64_t j = 0; j < columns; ++j)
          row[j] = *reinterpret_cast<const W*>(data + source + j * from);
    }
  });
}

template <class W>
void copy(const py::detail::PyArray_Proxy& x, char* result) {
  Outer outer;
  const auto bytes = static_cast<int64_t>(sizeof(W));
  const int last = x.nd - 1;
  int dense = last;  // the axis along which the source is dense
  for (int axis = 0; axis < last; ++axis)
    if (x.strides[axis] == bytes && x.dimensions[axis] > 1 && x.strides[last] != bytes)
      dense = axis;
  int64_t stride = bytes, dense_stride = bytes;
  for (int axis = x.nd; axis-- > 0; stride *= x.dimensions[axis]) {
    if (axis == dense) dense_stride = stride;
    if (axis != last && axis != dense) outer.add(x.dimensions[axis], x.strides[axis], stride);
  }
  const int64_t columns = x.dimensions[last], from = x.strides[last];
  const char* const data = x.data;
  if (dense == last) return copy_rows<W>(outer, data, result, columns, from, bytes);
  const int64_t rows = x.dimensions[dense], strips = (rows + kTile - 1) / kTile;
  over(outer.places() * strips, std::max<int64_t>(kRange / (kTile * columns), 1),
       [&](int64_t begin, int64_t end) {
         for (int64_t task = begin; task < end; ++task) {
           int64_t source, target;
           outer.find(task / strips, source, target);
           const int64_t i = task % strips * kTile;
           for (int64_t j = 0; j < columns; j += kTile)
             transpose_tile<W>(data + source + j * from + i * bytes, from,
                               result + target + i * dense_stride + j * bytes, dense_stride,
                               std::min(kTile, rows - i), std::min(kTile, columns - j));
         }
       });
}

template <class Body>
void visit_words(py::ssize_t bytes, const Body& body) {
  switch (bytes) {
    case 1:
      return body(uint8_t{});
    case 2:
      return body(uint16_t{});
    case 4:
      return body(uint32_t{});
    default:
      return body(uint64_t{});
  }
}

}  // namespace

py::object in_c_order(PyObject* array) {
  const auto& x = fields(array);
  py::object result = new_like(array);
  const auto source = py::reinterpret_borrow<py::array>(array);
  char* const target = fields(result.ptr()).data;
  if (source.size() == 0) return result;
  if (x.nd < 2 || x.nd > kMaxRank || !is_aligned(array)) {
    copy_elements(array, result.ptr());
    return result;
  }
  visit_words(source.itemsize(), [&]<class W>(W) { copy<W>(x, target); });
  return result;
}

void copy_strided(PyObject* source, PyObject* target) {
  const auto &x = fields(source), &y = fields(target);
  const auto array = py::reinterpret_borrow<py::array>(source);
  if (x.nd < 1 || x.nd > kMaxRank || !is_aligned(source) || !is_aligned(target) || !array.size())
    return copy_elements(source, target);
  Outer outer;
  const int last = x.nd - 1;
  for (int axis = 0; axis < last; ++axis)
    outer.add(x.dimensions[axis], x.strides[axis], y.strides[axis]);
  visit_words(array.itemsize(), [&]<class W>(W) {
    copy_rows<W>(outer, x.data, y.data, x.dimensions[last], x.strides[last], y.strides[last]);
  });
}

void fill_zeros(const Array& array) {
  constexpr int64_t kTaskBytes = 1 << 17;
  auto* const bytes = static_cast<char*>(array.data());
  over(static_cast<int64_t>(array.bytes()), kTaskBytes, [=](int64_t begin, int64_t end) {
    std::memset(bytes + begin, 0, static_cast<size_t>(end - begin));
  });
}

}  // namespace lamina::bindings
