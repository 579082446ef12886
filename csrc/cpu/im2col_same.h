// The matrix of planes that are as wide as the result, at stride 1 (the usual 3 x 3 with padding
// 1): a row of it is the plane, moved by the tap's shift, without what came from another row.
#pragma once

#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "ops/conv.h"

LAMINA_CPU_NAMESPACE_BEGIN

template <class T>
class SamePlanes {
 public:
  static bool holds(const ops::ConvShape& s) {
    return s.in[0] == 1 && s.out[0] == 1 && s.kernel[0] == 1 && s.stride[1] == 1 &&
           s.stride[2] == 1 && s.in[2] == s.out[2];
  }

  // Of a task; `inverse`: from the matrix to the plane.
  SamePlanes(const ops::ConvShape& s, bool inverse)
      : s_(s), width_(s.in[2] + kLanes<T>), valid_(s.kernel[2] * width_), taps_(s.kernel_size()) {
    const int64_t rows = inverse ? s.out[1] : s.in[1], w = s.in[2];
    for (int64_t r2 = 0; r2 < s.kernel[2]; ++r2) {
      const int64_t right = moved(2, r2, inverse);
      for (int64_t j = 0; j < width_; ++j) {
        const int64_t column = j % w + right;
        valid_[r2 * width_ + j] = column >= 0 && column < w ? -1 : 0;
      }
      for (int64_t r1 = 0; r1 < s.kernel[1]; ++r1) {
        const int64_t down = moved(1, r1, inverse), shift = down * w + right;
        taps_[r1 * s.kernel[2] + r2] = {shift, max_of(-down * w, -shift),
                                        min_of((rows - down) * w, rows * w - shift),
                                        &valid_[r2 * width_]};
      }
    }
  }

  // A row of the matrix from its channel of x.
  LAMINA_INLINE void write(const T* x, int64_t tap, T* row, bool streamed) const {
    const Tap from = taps_[tap];
    Column column(s_.in[2]);
    write_line(row, s_.out_size(), streamed,
               [&](int64_t i, int64_t) { return from.load(x, i, column.at(i)); });
  }

  // A channel of grad_x from its rows of the matrix; asks for the next channel's.
  LAMINA_INLINE void gather(const T* rows, T bias, T* grad_x) const {
    const int64_t taps = s_.kernel_size(), out = s_.out_size();
    Column column(s_.in[2]);
    along_line<T>(s_.in_size(), [&](int64_t i, int64_t count) {
      const int64_t j = column.at(i);
      Vec<T> sum = broadcast(bias);
      const T* row = rows;
      for (int64_t tap = 0; tap < taps; ++tap, row += out) {
        __builtin_prefetch(row + taps * out + i);
        sum += taps_[tap].load(row, i, j);
      }
      store_first(grad_x + i, count, sum);
    });
  }

 private:
  // By how much a tap moves along an axis.
  LAMINA_INLINE int64_t moved(int axis, int64_t r, bool inverse) const {
    const int64_t offset = r * s_.dilation[axis] - s_.pad[axis];
    return inverse ? -offset : offset;
  }

  // The column of a vector, of vectors in order.
  class Column {
   public:
    LAMINA_INLINE explicit Column(int64_t width) : width_(width) {}
    LAMINA_INLINE int64_t at(int64_t i) {
      for (column_ += i - last_, last_ = i; column_ >= width_;) column_ -= width_;
      return column_;
    }

   private:
    int64_t width_, column_ = 0, last_ = 0;
  };

  struct Tap {
    int64_t shift, begin, end;  // of the elements that come from inside the source
    const LaneInteger<T>* valid;

    LAMINA_INLINE Vec<T> load(const T* source, int64_t i, int64_t column) const {
      const Vec<T> v = i >= begin && i + kLanes<T> <= end
                           ? cpu::LAMINA_ISA::load(source + i + shift)
                           : load_lanes(source + i + shift, begin - i, end - i);
      Mask<T> inside;
      __builtin_memcpy(&inside, valid + column, sizeof inside);
      return (Vec<T>)((Mask<T>)v & inside);
    }
  };

  const ops::ConvShape& s_;
  int64_t width_;  // of the table of valid columns: a vector from any column on
  Scratch<LaneInteger<T>> valid_;
  Scratch<Tap> taps_;
};

LAMINA_CPU_NAMESPACE_END
