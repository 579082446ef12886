// Windows of two or three columns, of stride 1 or 2, in short rows: what max pools whose indices
// nobody asks for share with averages of one divisor and their gradients.
//
// Rows are folded down first, one behind the other in a line as wide as the results and their
// stride; taps are loads from it. Results of all rows are one line of whole vectors. Lanes whose
// tap leaves its row are left out.
#pragma once

#include "cpu/pool_fold.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kShortRow = 5;  // vectors; longer ones lose little at their ends

// The line of folded rows of a task.
template <class T, int STRIDE, int TAPS>
class FoldedLine {
 public:
  static int64_t used(const PoolAxis& axis, const RegularColumns& columns) {
    return min_of(axis.in, columns.base + (axis.out - 1) * STRIDE + TAPS);
  }

  // Which taps of which outputs are inside.
  FoldedLine(const PoolAxis& axis, const RegularColumns& columns)
      : base_(columns.base), out_(axis.out), valid_(TAPS * (axis.out + kLanes<T>)) {
    for (int64_t t = 0; t < TAPS; ++t)
      for (int64_t i = 0; i < out_ + kLanes<T>; ++i) {
        const int64_t column = base_ + i % out_ * STRIDE + t;
        const bool inside = column >= 0 && column < axis.in;
        valid_[t * (out_ + kLanes<T>)+i] = inside ? -1 : 0;
        whole_[t] = whole_[t] && inside;
      }
  }

  template <class Fold, class Finish>
  void write(const T* line, int64_t size, T* y, bool streamed, const Finish& finish) const {
    int64_t column = 0;  // of the vector's first output
    const int64_t step = kLanes<T> % out_;
    const T* const from = line + base_;
    write_line(y, size, streamed, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
      Vec<T> v;
      const T* at = from + i * STRIDE;
#pragma GCC unroll 4
      for (int t = 0; t < TAPS; ++t) {
        const T* p = at + t / STRIDE * STRIDE;
        Vec<T> tap = load(p);
        if constexpr (STRIDE == 2)
          tap = t % 2 ? every_other<T, true>(tap, load(p + kLanes<T>))
                      : every_other<T, false>(tap, load(p + kLanes<T>));
        if (!whole_[t]) {
          Mask<T> valid;
          __builtin_memcpy(&valid, &valid_[t * (out_ + kLanes<T>)+column], sizeof valid);
          tap = valid ? tap : broadcast(Fold::kNothing);
        }
        v = t == 0 ? tap : Fold::join(v, tap);
      }
      column += count == kLanes<T> ? step : count % out_;
      column -= column >= out_ ? out_ : 0;
      return finish(v);
    });
  }

 private:
  int64_t base_, out_;
  Scratch<LaneInteger<T>> valid_;  // [TAPS][out + a vector]
  bool whole_[3] = {true, true, true};
};

// y = finish(folded window). False for windows that are not of this file.
template <class T, class Fold, class Finish>
static bool fold_lines(const PoolArgs<T>& args, const RegularColumns& columns,
                       const Finish& finish) {
  const PoolAxis* axis = args.axis;
  if (!columns.holds || columns.stride > 2 || !few_rows(args)) return false;
  const int64_t out = axis[2].out, work = row_work(args);
  const bool streamed = is_streamed<T>(args.planes * args.out_size());
  const bool large = streamed || large_input(args);
  bool done = false;
  with_constants(columns, axis[2].step, [&](auto stride, auto taps) {
    if constexpr (taps > 0) {
      using Line = FoldedLine<T, stride, taps>;
      const int64_t pitch = out * stride, used = Line::used(axis[2], columns);
      if (used > pitch || pitch >= kShortRow * kLanes<T>) return;
      const Line line(axis[2], columns);
      const RowVectors<T> vectors(0, axis[2].in);
      for_each_row_group(args.planes, axis[0].out, axis[1].out, work, large, [&](const auto& rows) {
        Scratch<T> folded(rows_together(work) * pitch + 4 * kLanes<T>);
        T* const begin = folded.get() + kLanes<T>;
        T *to = begin, *y = nullptr;
        rows([&](int64_t plane, int64_t o0, int64_t o1) {
          if (!y) y = args.result + ((plane * axis[0].out + o0) * axis[1].out + o1) * out;
          const WindowRows<T> behind(args, plane, o0, o1);
          behind.prefetch(work);
          if (behind.depths == 1 && behind.rows == taps)
            for (int64_t j = 0; j < used; j += kLanes<T>)
              store(to + j, vectors.template fold<Fold, taps>(behind, j));
          else
            for (int64_t j = 0; j < used; j += kLanes<T>)
              store(to + j, vectors.template fold<Fold, 0>(behind, j));
          to += pitch;
        });
        line.template write<Fold>(begin, (to - begin) / stride, y, streamed, finish);
      });
      done = true;
    }
  });
  return done;
}

LAMINA_CPU_NAMESPACE_END
