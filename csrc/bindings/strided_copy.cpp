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

// target[i][j] = source[j][i]: rows of the target follow one another every `to` bytes, those of the
// source every `from`.
template <class W>
void transpose_tile(const char* source, int64_t from, char* target, int64_t to, int64_t rows,
                    int64_t columns) {
  W tile[kTile][kTile + 1];  // lines of either side may all fall into one set of the cache
  for (int64_t j = 0; j < columns; ++j) {
    const auto* const line = reinterpret_cast<const W*>(source + j * from);
    for (int64_t i = 0; i < rows; ++i) tile[i][j] = line[i];
  }
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(target + i * to, tile[i], static_cast<size_t>(columns) * sizeof(W));
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
  if (dense == last)
    return over(outer.places(), std::max<int64_t>(kRange / columns, 1),
                [&](int64_t begin, int64_t end) {
                  for (int64_t place = begin; place < end; ++place) {
                    int64_t source, target;
                    outer.find(place, source, target);
                    auto* const row = reinterpret_cast<W*>(result + target);
                    if (from == bytes)
                      std::memcpy(row, data + source, static_cast<size_t>(columns * bytes));
                    else
                      for (int64_t j = 0; j < columns; ++j)
                        row[j] = *reinterpret_cast<const W*>(data + source + j * from);
                  }
                });
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
  switch (source.itemsize()) {
    case 1:
      copy<uint8_t>(x, target);
      break;
    case 2:
      copy<uint16_t>(x, target);
      break;
    case 4:
      copy<uint32_t>(x, target);
      break;
    default:
      copy<uint64_t>(x, target);
  }
  return result;
}

}  // namespace lamina::bindings
