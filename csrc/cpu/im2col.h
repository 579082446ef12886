// The convolution input as a matrix: col[c r][o] = x[c][o * stride - pad + r * dilation], zero
// outside x, for the channels of one group of one image.
#pragma once

#include <type_traits>

#include "cpu/simd.h"
#include "ops/conv.h"

LAMINA_CPU_NAMESPACE_BEGIN

// Output columns [first, last) along one axis whose tap at `offset` (= r * dilation - pad) is
// inside.
struct InsideRange {
  int64_t first, last;
};
LAMINA_INLINE InsideRange inside_range(int64_t offset, int64_t stride, int64_t in, int64_t out) {
  const int64_t first = offset >= 0 ? 0 : ceil_div(-offset, stride);
  const int64_t last = in > offset ? (in - 1 - offset) / stride + 1 : 0;
  return {min_of(first, out), max_of(min_of(last, out), min_of(first, out))};
}

// Rows (c, r) of the matrix of channels x, `plane` apart, for a tap r.
template <class T>
class Im2colTap {
 public:
  LAMINA_INLINE Im2colTap(const ops::ConvShape& s, int64_t tap) : s_(s) {
    const int64_t r[3] = {tap / (s.kernel[1] * s.kernel[2]), tap / s.kernel[2] % s.kernel[1],
                          tap % s.kernel[2]};
    for (int axis = 0; axis < 3; ++axis) offset_[axis] = r[axis] * s.dilation[axis] - s.pad[axis];
  }

  // x: one channel.
  LAMINA_INLINE void write(const T* x, T* row) const {
    const int64_t out = s_.out[2], stride = s_.stride[2];
    for (int64_t o0 = 0; o0 < s_.out[0]; ++o0)
      for (int64_t o1 = 0; o1 < s_.out[1]; ++o1, row += out) {
        const int64_t i0 = o0 * s_.stride[0] + offset_[0], i1 = o1 * s_.stride[1] + offset_[1];
        const bool inside = i0 >= 0 && i0 < s_.in[0] && i1 >= 0 && i1 < s_.in[1];
        const T* source = x + (i0 * s_.in[1] + i1) * s_.in[2] + offset_[2];
        const int64_t begin = -offset_[2], end = inside ? begin + s_.in[2] : begin;
        along_line<T>(out, [&](int64_t j, int64_t count) {
          const int64_t at = j * stride;
          store_first(row + j, count,
                      stride == 1 ? load_lanes(source + at, begin - at, end - at)
                                  : load_spaced(source + at, stride, ceil_div(begin - at, stride),
                                                min_of(ceil_div(end - at, stride), count)));
        });
      }
  }

 private:
  const ops::ConvShape& s_;
  int64_t offset_[3];
};

// Output positions [begin, begin + count) of all images, flattened, as runs within output rows; at
// most kMost of them. They are the columns of panels, kPanel wide, the last one as many whole
// vectors as it needs.
template <class T, int kMost, int kPanel>
class Im2colRuns {
 public:
  // x: the first channel of a group in image 0, images image_step apart.
  LAMINA_INLINE Im2colRuns(const ops::ConvShape& s, const T* x, int64_t image_step, int64_t begin,
                           int64_t count)
      : s_(s), x_(x), padded_(ceil_div(count, kLanes<T>) * kLanes<T>), padding_(padded_ - count) {
    int64_t o2 = begin % s.out[2], o1 = begin / s.out[2] % s.out[1];
    int64_t o0 = begin / (s.out[2] * s.out[1]) % s.out[0], image = begin / s.out_size();
    for (int64_t done = 0; done < count;) {
      const int64_t panel = done / kPanel * kPanel,
                    width = min_of<int64_t>(kPanel, padded_ - panel);
      const int64_t some = min_of(min_of(s.out[2] - o2, count - done), panel + kPanel - done);
      const int64_t i0 = o0 * s.stride[0] - s.pad[0], i1 = o1 * s.stride[1] - s.pad[1];
      const int64_t i2 = o2 * s.stride[2] - s.pad[2];
      runs_[size_++] = {image * image_step + (i0 * s.in[1] + i1) * s.in[2] + i2,
                        i0,
                        i1,
                        i2,
                        some,
                        panel,
                        done - panel,
                        width};
      done += some, o2 += some;
      if (o2 < s.out[2]) continue;
      o2 = 0;
      if (++o1 == s.out[1]) {
        o1 = 0;
        if (++o0 == s.out[0]) o0 = 0, ++image;
      }
    }
  }

  // panels[count][kPanel] of the rows (c, r) from `first` on; zeros beyond the last position. Rows
  // of the same tap are packed together: they differ by the channel alone.
  LAMINA_INLINE void pack(int64_t first, int64_t count, T* panels) const {
    const int64_t* kernel = s_.kernel;
    const int64_t taps = s_.kernel_size();
    if (count == 0 || taps == 0) return;  // also of a phase without taps
    int64_t c = first / taps;
    int64_t r[3] = {first / (kernel[2] * kernel[1]) % kernel[0], first / kernel[2] % kernel[1],
                    first % kernel[2]};
    // Channels by which rows of x are prefetched: those of the next call, if not soon enough.
    const int64_t ahead = taps == 1 ? 17 : max_of(1 + 16 / taps, ceil_div(count, taps));
    for (int64_t row = 0; row < min_of(count, taps); ++row) {
      pack_channels(r, c, row, taps, count, r[2] == 0 ? ahead : 0, panels);
      if (++r[2] < kernel[2]) continue;
      r[2] = 0;
      if (++r[1] < kernel[1]) continue;
      r[1] = 0;
      if (++r[0] == kernel[0]) r[0] = 0, ++c;
    }
    clear_padding(count, panels);
  }

  // The same of the channels [first, first + count) of tap r.
  LAMINA_INLINE void pack_tap(const int64_t (&r)[3], int64_t first, int64_t count,
                              T* panels) const {
    constexpr int64_t kAhead = 17;  // channels by which rows of x are prefetched
    pack_channels(r, first, 0, 1, count, kAhead, panels);
    clear_padding(count, panels);
  }

 private:
  // Rows row, row + step, ... of `count`: tap r of the channels from `channel` on. Prefetches
  // channels that lie `ahead` of them, unless that is 0.
  LAMINA_INLINE void pack_channels(const int64_t (&r)[3], int64_t channel, int64_t row,
                                   int64_t step, int64_t count, int64_t ahead, T* panels) const {
    constexpr int64_t kTogether = 16;
    const int64_t d0 = r[0] * s_.dilation[0], d1 = r[1] * s_.dilation[1],
                  d2 = r[2] * s_.dilation[2], plane = s_.in_size();
    for (; row < count; row += kTogether * step, channel += kTogether) {
      const int64_t lines = min_of(kTogether, ceil_div(count - row, step));
      const T* source = x_ + channel * plane + (d0 * s_.in[1] + d1) * s_.in[2] + d2;
      for (int64_t i = 0; ahead > 0 && i < lines; ++i)
        if (channel + i + ahead < s_.c_per_group()) prefetch(source + (i + ahead) * plane);
      for (int index = 0; index < size_; ++index) {
        const Run& run = runs_[index];
        const bool inside = run.i0 + d0 >= 0 && run.i0 + d0 < s_.in[0] && run.i1 + d1 >= 0 &&
                            run.i1 + d1 < s_.in[1];
        const int64_t before = -(run.i2 + d2);  // elements outside the row of x
        copy_run(source + run.at, plane, lines, before, inside ? before + s_.in[2] : 0, run.count,
                 panels + run.panel * count + row * run.width + run.inside, step * run.width);
      }
    }
  }

  // Zeros beyond the last position in `count` rows.
  LAMINA_INLINE void clear_padding(int64_t count, T* panels) const {
    if (padding_ == 0) return;
    const int64_t panel = (padded_ - 1) / kPanel * kPanel, width = padded_ - panel;
    T* last = panels + panel * count + width - kLanes<T>;
    for (int64_t row = 0; row < count; ++row, last += width)
      store_lanes(last, kLanes<T> - padding_, kLanes<T>, Vec<T>{});
  }

  struct Run {
    int64_t at, i0, i1, i2;  // of tap 0: offset from x, coordinates
    int64_t count;
    int64_t panel, inside, width;  // first column of the panel; column in it; its width
  };

  // to[j] = from[j * stride] for the elements [begin, end) of `from`, else 0, of several lines.
  LAMINA_INLINE void copy_run(const T* from, int64_t from_step, int64_t lines, int64_t begin,
                              int64_t end, int64_t count, T* to, int64_t to_step) const {
    const int64_t stride = s_.stride[2];
    if (stride > 2)
      return copy_spaced(from, from_step, lines, stride, begin, end, count, to, to_step);
    for (int64_t j = 0; j < count; j += kLanes<T>) {
      const int64_t at = stride * j, first = begin - at, last = end - at, some = count - j;
      const T* source = from + at;
      T* place = to + j;
      const bool whole = first <= 0 && last >= stride * kLanes<T> && some >= kLanes<T>;
      if (stride == 1 && whole)
        for (int64_t i = 0; i < lines; ++i, source += from_step, place += to_step)
          store(place, load(source));
      else if (stride == 1)
        for (int64_t i = 0; i < lines; ++i, source += from_step, place += to_step)
          store_first(place, some, load_lanes(source, first, last));
      else
        for (int64_t i = 0; i < lines; ++i, source += from_step, place += to_step)
          store_first(place, some,
                      every_other<T, false>(
                          load_lanes(source, first, last),
                          load_lanes(source + kLanes<T>, first - kLanes<T>, last - kLanes<T>)));
    }
  }

  // Not inline: strides of 1 and 2 keep their registers.
  [[gnu::noinline]] static void copy_spaced(const T* from, int64_t from_step, int64_t lines,
                                            int64_t stride, int64_t begin, int64_t end,
                                            int64_t count, T* to, int64_t to_step) {
    const auto copy = [&](auto step) {
      copy_every<step>(from, from_step, lines, begin, end, count, to, to_step);
    };
    if (stride == 3) return copy(std::integral_constant<int, 3>{});
    if (stride == 4) return copy(std::integral_constant<int, 4>{});
    if (stride == 5) return copy(std::integral_constant<int, 5>{});
    for (int64_t i = 0; i < lines; ++i, from += from_step, to += to_step)
      for (int64_t j = 0; j < count; ++j)
        to[j] = j * stride >= begin && j * stride < end ? from[j * stride] : T(0);
  }
  template <int Step>
  LAMINA_INLINE static void copy_every(const T* from, int64_t from_step, int64_t lines,
                                       int64_t begin, int64_t end, int64_t count, T* to,
                                       int64_t to_step) {
    for (int64_t j = 0; j < count; j += kLanes<T>) {
      const int64_t at = Step * j, first = begin - at, last = end - at, some = count - j;
      const T* source = from + at;
      T* place = to + j;
      if (first <= 0 && last >= Step * kLanes<T> && some >= kLanes<T>)
        for (int64_t i = 0; i < lines; ++i, source += from_step, place += to_step)
          store(place, every_nth<T, Step>([&](int k) { return load(source + k * kLanes<T>); }));
      else
        for (int64_t i = 0; i < lines; ++i, source += from_step, place += to_step)
          store_first(place, some, every_nth<T, Step>([&](int k) {
                        const int64_t before = k * kLanes<T>;
                        return load_lanes(source + before, first - before, last - before);
                      }));
    }
  }

  LAMINA_INLINE void prefetch(const T* source) const {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    for (int index = 0; index < size_; ++index)
      for (int64_t at = 0; at < runs_[index].count * s_.stride[2]; at += kLine)
        __builtin_prefetch(source + runs_[index].at + at);
  }

  const ops::ConvShape& s_;
  const T* x_;
  int64_t padded_, padding_;  // columns of all panels; those that are no positions
  Run runs_[kMost];
  int size_ = 0;
};

LAMINA_CPU_NAMESPACE_END
