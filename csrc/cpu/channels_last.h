// Lines of memory laid out one beside the other: channels behind each position, filters behind each
// tap.
#pragma once

#include "core/threads.h"
#include "cpu/simd.h"

LAMINA_CPU_NAMESPACE_BEGIN

// place(column)[width] = from[line * step + column], zero behind the lines; width in whole vectors.
template <class T, class Place>
LAMINA_INLINE void lay_lines_last(const T* from, int64_t lines, int64_t step, int64_t columns,
                                  int64_t width, const Place& place) {
  for (int64_t column = 0; column < columns; column += kLanes<T>) {
    const int64_t count = min_of<int64_t>(columns - column, kLanes<T>);
    for (int64_t line = 0; line < width; line += kLanes<T>) {
      Vec<T> square[kLanes<T>];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes<T>; ++i)
        square[i] =
            line + i < lines ? load_first(from + (line + i) * step + column, count) : Vec<T>{};
      transpose<T>(square);
      for (int64_t j = 0; j < count; ++j) store(place(column + j) + line, square[j]);
    }
  }
}

// to[group][image][position][width] = x[image][group][channel][position].
template <class T>
static void lay_channels_last(const T* x, int64_t images, int64_t groups, int64_t channels,
                              int64_t positions, int64_t width, T* to) {
  constexpr int64_t kTaskElements = 1 << 15;
  const int64_t runs = ceil_div(positions, kLanes<T>);
  const int64_t grain = ceil_div(kTaskElements, max_of<int64_t>(width * kLanes<T>, 1));
  parallel_ranges(images * groups * runs, grain, [&](int64_t task, int64_t end) {
    for (; task < end; ++task) {
      const int64_t image_group = task / runs, first = task % runs * kLanes<T>;
      const int64_t place = image_group % groups * images + image_group / groups;
      T* const lines = to + (place * positions + first) * width;
      lay_lines_last(x + image_group * channels * positions + first, channels, positions,
                     min_of<int64_t>(positions - first, kLanes<T>), width,
                     [&](int64_t i) { return lines + i * width; });
    }
  });
}

LAMINA_CPU_NAMESPACE_END
