// Windows of a few taps that lie at one distance along the columns: what max pools share with
// averages.
//
// The rows of a window are folded first. What they leave is split into the phases of its columns,
// 0, stride, 2 * stride, ... and 1, stride + 1, ..., each a line of its own: a tap of a vector of
// outputs is one load. All rows of a task are split before the first is used, so that no load
// waits for the stores that it spans.
#pragma once

#include "cpu/pool_fold.h"
#include "cpu/pool_largest.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kMostStride = 16;
inline constexpr int64_t kFewTaps = 5;  // in stride 1 or 2: fewer are offered as fast one by one

// As split_columns, of any Step: even and odd ones first, or one vector after the other.
template <class T, int Step>
LAMINA_INLINE void split_any(const Vec<T> (&in)[Step], Vec<T> (&out)[Step]) {
  if constexpr (Step <= 4) {
    split_columns<T, Step>(in, out);
  } else if constexpr (Step % 2 == 0) {
    constexpr int kHalf = Step / 2;
    Vec<T> half[kHalf], split[kHalf];
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) half[i] = every_other<T, false>(in[2 * i], in[2 * i + 1]);
    split_any<T, kHalf>(half, split);
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) out[2 * i] = split[i];
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) half[i] = every_other<T, true>(in[2 * i], in[2 * i + 1]);
    split_any<T, kHalf>(half, split);
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) out[2 * i + 1] = split[i];
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < Step; ++i) {
      Vec<T> v = in[0];
#pragma GCC unroll 16
      for (int j = 1; j < Step; ++j) {
        Mask<T> order{};  // of what the first j vectors have, and the next
        for (int t = 0; t < kLanes<T>; ++t) {
          const int at = t * Step + i, from = at / kLanes<T>;
          order[t] = from == j ? kLanes<T> + at % kLanes<T> : j == 1 && from == 0 ? at : t;
        }
        v = __builtin_shuffle(v, in[j], order);
      }
      out[i] = v;
    }
  }
}

// phases[i][j] = line[j * STRIDE + i] for j in [0, pitch), a whole number of vectors.
template <class T, int STRIDE>
static void split_phases(const T* line, int64_t pitch, T* phases) {
  for (int64_t j = 0; j < pitch; j += kLanes<T>, line += STRIDE * kLanes<T>) {
    if constexpr (kVectorBytes >= 32) {
      Vec<T> in[STRIDE], out[STRIDE];
#pragma GCC unroll 16
      for (int i = 0; i < STRIDE; ++i) in[i] = load(line + i * kLanes<T>);
      split_any<T, STRIDE>(in, out);
#pragma GCC unroll 16
      for (int i = 0; i < STRIDE; ++i) store(phases + i * pitch + j, out[i]);
    } else {
      for (int i = 0; i < STRIDE; ++i)
        for (int k = 0; k < kLanes<T>; ++k) phases[i * pitch + j + k] = line[k * STRIDE + i];
    }
  }
}
template <class T, int STRIDE = 1>
static auto split_for(int64_t stride) {
  if constexpr (STRIDE < kMostStride)
    if (stride > STRIDE) return split_for<T, STRIDE + 1>(stride);
  return split_phases<T, STRIDE>;
}

// A row of the columns that windows use, and its phases.
template <class T>
class PhaseColumns {
 public:
  int64_t base, begin, end, stride, taps, step;  // begin, end: of the columns inside the row
  int64_t line_size, size;                       // of a row and of its phases

  PhaseColumns(const PoolAxis& axis, const RegularColumns& columns)
      : base(columns.base),
        begin(max_of<int64_t>(base, 0)),
        stride(columns.stride),
        taps(columns.taps),
        step(axis.step),
        split_(split_for<T>(stride)) {
    const int64_t last = (taps - 1) * step;  // tap
    end = min_of(axis.in, base + (axis.out - 1) * stride + last + 1);
    pitch_ =
        ceil_div(ceil_div(axis.out, kLanes<T>) * kLanes<T> + last / stride, kLanes<T>) * kLanes<T>;
    size = stride * pitch_, line_size = size + kLanes<T>;
    for (int64_t t = 0; t < taps; ++t) place_[t] = t * step % stride * pitch_ + t * step / stride;
  }

  // Calls body(column, how many of a vector are inside, where they lie in the line).
  template <class Body>
  LAMINA_INLINE void along_row(const Body& body) const {
    for (int64_t j = begin; j < end; j += kLanes<T>) body(j, end - j, j - base);
  }
  template <class Element>  // as wide as T
  void split(const Element* line, Element* phases) const {
    split_(reinterpret_cast<const T*>(line), pitch_, reinterpret_cast<T*>(phases));
  }
  LAMINA_INLINE Vec<T> tap(const T* phases, int64_t o, int64_t t) const {
    return load(phases + place_[t] + o);
  }
  LAMINA_INLINE Mask<T> tap(const LaneInteger<T>* phases, int64_t o, int64_t t) const {
    Mask<T> v;
    __builtin_memcpy(&v, phases + place_[t] + o, sizeof v);
    return v;
  }

 private:
  decltype(split_for<T>(1)) split_;
  int64_t pitch_, place_[RegularColumns::kMaxTaps];
};

// y = finish(folded window, o0, o1, o2) in vectors of o2, for the windows of this file. False for
// others.
template <class T, class Fold, class Finish>
static bool fold_phases(const PoolArgs<T>& args, const RegularColumns& regular,
                        const Finish& finish) {
  const PoolAxis* axis = args.axis;
  if (!regular.holds || !few_rows(args)) return false;
  const int64_t out = axis[2].out, work = row_work(args);
  const bool streamed = is_streamed<T>(args.planes * args.out_size());
  const bool large = streamed || large_input(args);
  const PhaseColumns<T> columns(axis[2], regular);
  for_each_row_group(args.planes, axis[0].out, axis[1].out, work, large, [&](const auto& rows) {
    const Scratch<T> line(columns.line_size), phases(rows_together(work) * columns.size);
    fill(line.get(), columns.line_size, Fold::kNothing);
    T* split = phases.get();
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      const WindowRows<T> behind(args, plane, o0, o1);
      behind.prefetch(work);
      columns.along_row([&](int64_t j, int64_t inside, int64_t at) {
        store(&line[at], behind.template down<Fold, 0>([&](const T* row) {
          return load_first(row + j, inside, Fold::kNothing);
        }));
      });
      columns.split(line.get(), split);
      split += columns.size;
    });
    split = phases.get();
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      T* y = args.result + ((plane * axis[0].out + o0) * axis[1].out + o1) * out;
      for (int64_t o = 0; o < out; o += kLanes<T>) {
        Vec<T> v = columns.tap(split, o, 0);
        for (int64_t t = 1; t < columns.taps; ++t) v = Fold::join(columns.tap(split, o, t), v);
        store_result(y + o, out - o, finish(v, o0, o1, o), streamed);
      }
      split += columns.size;
    });
  });
  return true;
}

// The largest of elements that come in any order: the first in the plane of equals.
template <class T>
struct LargestPlaced {
  // Behind all places; of doubles, whose places have 64 bits too, a row's can still be added.
  static constexpr LaneInteger<T> kNowhere =
      static_cast<LaneInteger<T>>(sizeof(T) == 4 ? 0x7FFFFFFF : int64_t{1} << 62);
  Vec<T> value = broadcast<T>(-T(__builtin_inf()));
  Mask<T> place = Mask<T>{} + kNowhere;

  // NaN wins and stays.
  LAMINA_INLINE void offer(Vec<T> candidate, Mask<T> at) {
    const Mask<T> known = value == value;
    const Mask<T> equal = (candidate == value) | ((candidate != candidate) & ~known);
    const Mask<T> better = (~(candidate <= value) & known) | (equal & (at < place));
    value = better ? candidate : value, place = better ? at : place;
  }
};
// The same where no candidate is NaN, as in LargestOrdered.
template <class T>
struct LargestPlacedOrdered : LargestPlaced<T> {
  using LargestPlaced<T>::value, LargestPlaced<T>::place;
  Vec<T> sum = {};

  LAMINA_INLINE void offer(Vec<T> candidate, Mask<T> at) {
    const Mask<T> first = at < place ? at : place;
    place = candidate == value ? first : place;
    place = candidate > value ? at : place;
    value = larger<T>(candidate, value);
    sum += candidate;
  }
  LAMINA_INLINE bool holds() const { return !any_lane<T>(sum != sum); }
};

// Maxima and their places, of windows of one row.
template <class T>
static void largest_of_phases(const PoolArgs<T>& args, const RegularColumns& regular) {
  const PoolAxis* axis = args.axis;
  const int64_t out = axis[2].out, work = row_work(args);
  const bool streamed = is_streamed<double>(args.planes * args.out_size());  // the indices
  const bool large = streamed || large_input(args);
  const PhaseColumns<T> columns(axis[2], regular);
  const Mask<T> lanes = lane_numbers<T>() * static_cast<LaneInteger<T>>(columns.stride);
  const Scratch<LaneInteger<T>> skipped(out + kLanes<T>);
  for (int64_t o = 0; o < out + kLanes<T>; ++o)
    skipped[o] = static_cast<LaneInteger<T>>(
        o < out ? axis[2].start[o] - columns.base - o * columns.stride : 0);
  for_each_row_group(args.planes, axis[0].out, axis[1].out, work, large, [&](const auto& rows) {
    const Scratch<T> line(columns.line_size), phases(rows_together(work) * columns.size);
    fill(line.get(), columns.line_size, -T(__builtin_inf()));
    T* split = phases.get();
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      const WindowRows<T> behind(args, plane, o0, o1);
      behind.prefetch(work);
      columns.along_row([&](int64_t j, int64_t inside, int64_t at) {
        store(&line[at], load_first(behind.first + j, inside, -T(__builtin_inf())));
      });
      columns.split(line.get(), split);
      split += columns.size;
    });
    split = phases.get();
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      const int64_t row = window_row(axis, o0, o1, 0, 0) + columns.base;
      const int64_t to = ((plane * axis[0].out + o0) * axis[1].out + o1) * out;
      for (int64_t o = 0; o < out; o += kLanes<T>) {
        const auto find = [&](auto& largest) __attribute__((always_inline)) {
          __builtin_memcpy(&largest.offset, &skipped[o], sizeof largest.offset);
          for (int64_t t = 0; t < columns.taps; ++t)
            largest.offer(columns.tap(split, o, t), static_cast<LaneInteger<T>>(t * columns.step));
        };
        const auto write = [&](const auto& largest) __attribute__((always_inline)) {
          store_result(args.result + to + o, out - o, largest.value, streamed);
          store_index<T>(args.index + to + o, out - o, largest.offset + lanes,
                         row + o * columns.stride, streamed);
        };
        find_largest<LargestOrdered<T>, Largest<T>>(find, write);
      }
      split += columns.size;
    });
  });
}

// The same of windows that all have rows.
template <class T>
static void largest_of_folded_phases(const PoolArgs<T>& args, const RegularColumns& regular) {
  using Integer = LaneInteger<T>;
  const PoolAxis* axis = args.axis;
  const int64_t out = axis[2].out, work = row_work(args);
  const bool streamed = is_streamed<double>(args.planes * args.out_size());  // the indices
  const bool large = streamed || large_input(args);
  const PhaseColumns<T> columns(axis[2], regular);
  for_each_row_group(args.planes, axis[0].out, axis[1].out, work, large, [&](const auto& rows) {
    const int64_t together = rows_together(work) * columns.size;
    const Scratch<T> line(columns.line_size), phases(together);
    const Scratch<Integer> places(columns.line_size), place_phases(together);
    fill(line.get(), columns.line_size, -T(__builtin_inf()));
    fill(places.get(), columns.line_size, LargestPlaced<T>::kNowhere);
    int64_t split = 0;
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      const T* x = args.x + plane * args.in_size();
      const int64_t first = window_row(axis, o0, o1, 0, 0);
      WindowRows<T>(args, plane, o0, o1).prefetch(work);
      columns.along_row([&](int64_t j, int64_t inside, int64_t at) {
        Largest<T> largest;
        for_each_window_row(axis, o0, o1, [&](int64_t row) {
          largest.offer(load_first(x + row + j, inside, -T(__builtin_inf())),
                        static_cast<Integer>(row - first));
        });
        Mask<T> place = largest.offset + lane_numbers<T>() + static_cast<Integer>(j);
        if (inside < kLanes<T>)
          place = lane_numbers<T>() < static_cast<Integer>(inside)
                      ? place
                      : Mask<T>{} + LargestPlaced<T>::kNowhere;
        store(&line[at], largest.value);
        __builtin_memcpy(&places[at], &place, sizeof place);
      });
      columns.split(line.get(), &phases[split]);
      columns.split(places.get(), &place_phases[split]);
      split += columns.size;
    });
    split = 0;
    rows([&](int64_t plane, int64_t o0, int64_t o1) {
      const int64_t first = window_row(axis, o0, o1, 0, 0);
      const int64_t to = ((plane * axis[0].out + o0) * axis[1].out + o1) * out;
      for (int64_t o = 0; o < out; o += kLanes<T>) {
        const auto find = [&](auto& largest) __attribute__((always_inline)) {
          for (int64_t t = 0; t < columns.taps; ++t)
            largest.offer(columns.tap(&phases[split], o, t),
                          columns.tap(&place_phases[split], o, t));
        };
        const auto write = [&](const auto& largest) __attribute__((always_inline)) {
          store_result(args.result + to + o, out - o, largest.value, streamed);
          store_index<T>(args.index + to + o, out - o, largest.place, first, streamed);
        };
        find_largest<LargestPlacedOrdered<T>, LargestPlaced<T>>(find, write);
      }
      split += columns.size;
    });
  });
}

LAMINA_CPU_NAMESPACE_END
