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

  // `inverse`: from the matrix to the plane. Empty where it does not hold.
  SamePlanes(const ops::ConvShape& s, bool inverse, bool holds)
      : s_(s),
        width_(s.in[2] + kLanes<T>),
        valid_(holds ? s.kernel[2] * width_ : 0),
        taps_(holds ? s.kernel_size() : 0) {
    if (!holds) return;
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

  // A channel of grad_x from its rows of the matrix, of which a few are read at a time: memory in
  // order. Asks for those after them.
  LAMINA_INLINE void gather(const T* rows, T bias, T* grad_x) const {
    constexpr int kFew = 3;
    const int64_t taps = s_.kernel_size(), out = s_.out_size();
    const auto nothing = [&](int64_t, int64_t) { return broadcast(bias); };
    const auto sums = [&](int64_t i, int64_t count) { return load_first(grad_x + i, count); };
    int64_t tap = 0;
    for (; tap + kFew <= taps; tap += kFew)
      tap == 0 ? add_taps<kFew>(rows, tap, nothing, grad_x)
               : add_taps<kFew>(rows + tap * out, tap, sums, grad_x);
    for (; tap < taps; ++tap)
      tap == 0 ? add_taps<1>(rows, tap, nothing, grad_x)
               : add_taps<1>(rows + tap * out, tap, sums, grad_x);
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

  // What stands in grad_x, and what some rows of the matrix add to it.
  template <int Count, class Before>
  LAMINA_INLINE void add_taps(const T* rows, int64_t tap, const Before& before, T* grad_x) const {
    const int64_t out = s_.out_size();
    Tap from[Count];
    for (int k = 0; k < Count; ++k) from[k] = taps_[tap + k];
    Column column(s_.in[2]);
    along_line<T>(s_.in_size(), [&](int64_t i, int64_t count) {
      const int64_t j = column.at(i);
      Vec<T> sum = before(i, count);
#pragma GCC unroll 4
      for (int k = 0; k < Count; ++k) {
        __builtin_prefetch(rows + (k + Count) * out + i);
        sum += from[k].load(rows + k * out, i, j);
      }
      store_first(grad_x + i, count, sum);
    });
  }

  const ops::ConvShape& s_;
  int64_t width_;  // of the table of valid columns: a vector from any column on
  Scratch<LaneInteger<T>> valid_;
  Scratch<Tap> taps_;
};

LAMINA_CPU_NAMESPACE_END
