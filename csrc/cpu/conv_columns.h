// The input gradient, of a stride above all, from the columns of im2col, block by block.
//
//   col[c r][o] = weight[k][c r]^T grad_y[k][o], then grad_x[i] gathers its (r, o) pairs
//
// Method        Nothing is unrolled: grad_y is the factor as it is, and the filters of some
//               channels lie side by side. A task packs those filters once, or finds them among
//               all that are kept, [panel][k][kRows], and goes over the
//               output positions of its images, one behind the other, a block at a time. Rows of
//               grad_x are gathered as soon as their columns are there, all phases of a stride
//               at once; columns that no later row meets are dropped. A line alone is gathered in
//               segments.
// Partitioning  group, block of input channels, block of images or band of an image's rows, planes
//               or segments.
// Numerics      sums over k in runs of kBlockDepth, the runs in order, then the taps in order.
// Floor         the FMA peak, or the filters over the bandwidth where positions are few: a filter
//               is read once for up to n / 16 images.
#pragma once

#include "cpu/activate.h"
#include "cpu/gemm.h"
#include "cpu/im2col.h"
#include "shared/conv_phase.h"

LAMINA_CPU_NAMESPACE_BEGIN

// The outputs [first, last) of an axis that element i of the input meets.
struct MetOutputs {
  int64_t first, last;

  LAMINA_INLINE MetOutputs(const ops::ConvShape& s, int axis, int64_t i) {
    const int64_t most = i + s.pad[axis];
    const int64_t least = most - (s.kernel[axis] - 1) * s.dilation[axis];
    first = min_of(least <= 0 ? 0 : ceil_div(least, s.stride[axis]), s.out[axis]);
    last = most < 0 ? 0 : min_of(most / s.stride[axis] + 1, s.out[axis]);
  }
  // At most, of `elements` neighbours.
  static int64_t most(const ops::ConvShape& s, int axis, int64_t elements = 1) {
    const int64_t span = (s.kernel[axis] - 1) * s.dilation[axis] + elements;
    return min_of((span - 1) / s.stride[axis] + 1, s.out[axis]);
  }
};

// How the gradient is cut into tasks.
template <class T>
struct ColumnTasks {
  int64_t window;            // columns that a task keeps
  int64_t channels, blocks;  // of a group
  int64_t images, parts;     // of the batch
  int64_t bands = 1;         // of the rows of a part that is one image
  int64_t count;

  explicit ColumnTasks(const ops::ConvShape& s) {
    using Tile = GemmTile<T>;
    constexpr int64_t kMostRows = 144, kFilters = 1 << 17, kSums = 1 << 16, kFewTasks = 8;
    constexpr int64_t kBandLines = 16;  // of grad_y
    const int64_t taps = s.kernel_size(), inputs = max_of<int64_t>(s.c_per_group(), 1);
    // Of a volume all planes that a row meets.
    const int64_t lines = flat(s) ? MetOutputs::most(s, 1) : MetOutputs::most(s, 0) * s.out[1];
    const int64_t columns = MetOutputs::most(s, 2, segment_vectors(s) * kLanes<T> * s.stride[2]);
    window = (segments(s) > 1 ? columns : lines * s.out[2]) + Tile::kBlockCols;
    int64_t rows = min_of(kMostRows, kFilters / max_of<int64_t>(s.k_per_group(), 1));
    rows = min_of(rows, kSums / window);
    const int64_t unit = Tile::kRows / greatest_divisor(Tile::kRows, taps);  // fills whole panels
    const auto cut = [&](int64_t most) {
      blocks = ceil_div(inputs, max_of<int64_t>(most, 1));
      channels = ceil_div(inputs, blocks);
      if (channels >= unit) channels = ceil_div(channels, unit) * unit;
      blocks = ceil_div(inputs, channels);
      count = s.groups * blocks * parts * bands;
    };
    images = max_of<int64_t>(s.n, 1), parts = 1;
    const int64_t most = rows / taps;
    cut(most >= unit ? most / unit * unit : unit * taps <= kMostRows ? unit : most);
    for (int64_t some = channels; 4 * some >= 3 * channels; some -= some < unit ? 1 : unit)
      if (inputs % some == 0) {  // blocks of one size take the same time
        cut(some);
        break;
      }
    while (count < kFewTasks && images > 1) {
      images = ceil_div(images, 2), parts = ceil_div(s.n, images);
      count = s.groups * blocks * parts;
    }
    // Bands that share no line of grad_y: each block of channels packs all of them again.
    const int axis = flat(s) ? 1 : 0;
    const int64_t of_band = segments(s) > 1 ? segments(s)
                            : flat(s)       ? s.out[1] / kBandLines
                                            : s.out[0];
    const bool apart = s.kernel[axis] <= s.stride[axis] && s.dilation[axis] == 1;
    while (count < kFewTasks && images == 1 && apart && of_band >= 2 * bands)
      bands *= 2, count *= 2;
    while (count < kFewTasks && channels > 1 && channels * taps >= 8 * Tile::kRows)
      cut(channels / 2);
  }
  static bool flat(const ops::ConvShape& s) { return s.in[0] == 1 && s.out[0] == 1; }
  // A line alone, in segments of about as many outputs.
  static int64_t segment_vectors(const ops::ConvShape& s) {
    constexpr int64_t kOutputs = 256;
    const int64_t vectors = ceil_div(ceil_div(s.in[2], s.stride[2]), kLanes<T>);
    const bool alone = flat(s) && s.in[1] == 1 && s.out[1] == 1 && s.out[2] >= 2 * kOutputs;
    return alone ? min_of<int64_t>(vectors, kOutputs / kLanes<T>) : vectors;
  }
  static int64_t segments(const ops::ConvShape& s) {
    return ceil_div(ceil_div(ceil_div(s.in[2], s.stride[2]), kLanes<T>), segment_vectors(s));
  }
  // The rows of a part, or their segments: all are before bands `count`.
  static int64_t rows_before(const ops::ConvShape& s, int64_t images, int64_t band, int64_t count) {
    if (flat(s)) return images * s.in[1] * segments(s) * band / count;
    return images * s.in[0] * band / count * s.in[1];
  }
};

// rows of [depth][k_step] as panels [depth][kRows], `step` apart.
template <class T>
static void pack_filter_rows(const T* weight, int64_t k_step, int64_t rows, int64_t depth,
                             T* panels, int64_t step) {
  constexpr int64_t kRows = GemmTile<T>::kRows, kLine = 64 / static_cast<int64_t>(sizeof(T));
  constexpr int64_t kAhead = 16;  // too far apart for the hardware, and often in one set of L1
  const int64_t whole = rows / kRows * kRows;
  for (int64_t k = 0; k < depth; ++k, weight += k_step, panels += kRows) {
    for (int64_t i = 0; i < rows + kLine - 1; i += kLine)
      __builtin_prefetch(weight + kAhead * k_step + i, 0, 2);
    T* to = panels;
    for (int64_t i = 0; i < whole; i += kRows, to += step)
      __builtin_memcpy(to, weight + i, sizeof(T) * kRows);
    for (int64_t r = 0; whole < rows && r < kRows; ++r)
      to[r] = whole + r < rows ? weight[whole + r] : T(0);
  }
}

// The columns of a task, and the rows of grad_x made of them.
template <class T>
class GradientRows {
 public:
  // Rows, or segments, [rows_begin, rows_end) of the images from `image` on, and `channels`
  // channels from `channel` of all on.
  GradientRows(const ops::ConvArgs<T>& args, int64_t image, int64_t rows_begin, int64_t rows_end,
               int64_t channel, int64_t channels, T* columns, int64_t step)
      : args_(args),
        s_(args.shape),
        image_(image),
        channel_(channel),
        channels_(channels),
        columns_(columns),
        step_(step),
        vectors_(ceil_div(ceil_div(s_.in[2], s_.stride[2]), kLanes<T>)),
        segments_(ColumnTasks<T>::segments(s_)),
        segment_(ColumnTasks<T>::segment_vectors(s_)),
        along_(s_.kernel[2]),
        phases_(s_.stride[2] + 1),
        lines_(s_.kernel[0] * s_.kernel[1]),
        sources_(s_.kernel_size()),
        starts_(s_.stride[2] + 1),
        inside_(s_.kernel[2] * vectors_),
        line_(s_.stride[2] > 2 ? vectors_ * kLanes<T> * s_.stride[2] : 0) {
    int64_t tap = 0;
    for (int64_t e = 0; e < s_.stride[2]; ++e) {
      phases_[e] = tap;
      for (int64_t r = 0; r < s_.kernel[2]; ++r) {
        const int64_t shift = e + s_.pad[2] - r * s_.dilation[2];
        if (shift % s_.stride[2] != 0) continue;
        const int64_t base = shift / s_.stride[2];  // element j of the phase meets base + j
        along_[tap] = r * step + base;
        for (int64_t v = 0; v < vectors_; ++v)
          inside_[tap * vectors_ + v] =
              Lanes<T>(-base - v * kLanes<T>, s_.out[2] - base - v * kLanes<T>);
        ++tap;
      }
    }
    phases_[s_.stride[2]] = tap;
    row_ = rows_begin, rows_end_ = rows_end;
    begin_ = rows_begin < rows_end ? row(rows_begin).first : 0;
    for (int64_t row = rows_begin; row < rows_end; ++row)
      last_ = max_of(last_, this->row(row).last);
    end_ = begin_;
  }

  // The columns [first, last) that the rows meet, and others between them.
  int64_t first() const { return begin_; }
  int64_t last() const { return max_of(begin_, last_); }

  // Where `count` further columns go.
  T* room() const { return columns_ + (end_ - begin_); }
  // They are there: stores what rows they complete, and moves those that others need to the front.
  void add(int64_t count) {
    end_ += count;
    while (row_ < rows_end_) {
      const Row row = this->row(row_);
      if (row.last > end_) break;
      store_row(row, count_bare(row));
    }
    if (row_ == rows_end_) return;
    const int64_t first = min_of(row(row_).first, end_), kept = end_ - first;
    if (kept > 0 && first > begin_)
      for (int64_t i = 0; i < channels_ * s_.kernel_size(); ++i)
        __builtin_memmove(columns_ + i * step_, columns_ + i * step_ + (first - begin_),
                          sizeof(T) * kept);
    begin_ = first;
  }

 private:
  // A row of grad_x of some image, or the vectors [from, to) of a line, and the columns [first,
  // last) that it or a later row meets.
  struct Row {
    int64_t image, i0, i1, from, to, first, last;

    LAMINA_INLINE Row(const ops::ConvShape& s, int64_t segments, int64_t some, int64_t index) {
      from = index % segments * some, to = from + some;
      index /= segments;
      image = index / (s.in[0] * s.in[1]), i0 = index / s.in[1] % s.in[0], i1 = index % s.in[1];
      if (segments > 1) {
        const int64_t step = kLanes<T> * s.stride[2];
        first = image * s.out[2] + MetOutputs(s, 2, from * step).first;
        last = image * s.out[2] + MetOutputs(s, 2, min_of(to * step, s.in[2]) - 1).last;
        return;
      }
      const MetOutputs planes(s, 0, i0), lines(s, 1, i1);
      const int64_t size = s.out[1] * s.out[2], plane = image * s.out_size();
      const bool any = planes.first < planes.last && lines.first < lines.last;
      first = plane + planes.first * size + (ColumnTasks<T>::flat(s) ? lines.first * s.out[2] : 0);
      last = any ? plane + (planes.last - 1) * size + lines.last * s.out[2] : 0;
    }
  };

  LAMINA_INLINE Row row(int64_t index) const { return Row(s_, segments_, segment_, index); }

  // Outputs that the elements of a phase meet, in the columns of a channel; their first Lanes.
  struct Source {
    int64_t place, inside;
  };

  // Goes on to the next row, past those behind `row` in its image that meet no output.
  int64_t count_bare(const Row& row) {
    const int64_t next = ++row_;
    if (segments_ > 1) return 0;
    while (row_ < rows_end_ && this->row(row_).image == row.image && this->row(row_).last == 0)
      ++row_;
    return row_ - next;
  }

  // A row and `bare` ones behind it.
  void store_row(const Row& row, int64_t bare) {
    int64_t lines = 0, count = 0;  // lines of taps that fall on outputs
    for (int64_t r0 = 0; r0 < s_.kernel[0]; ++r0) {
      const int64_t at0 = row.i0 + s_.pad[0] - r0 * s_.dilation[0], o0 = at0 / s_.stride[0];
      if (at0 < 0 || at0 != o0 * s_.stride[0] || o0 >= s_.out[0]) continue;
      for (int64_t r1 = 0; r1 < s_.kernel[1]; ++r1) {
        const int64_t at1 = row.i1 + s_.pad[1] - r1 * s_.dilation[1], o1 = at1 / s_.stride[1];
        if (at1 < 0 || at1 != o1 * s_.stride[1] || o1 >= s_.out[1]) continue;
        lines_[lines++] = (r0 * s_.kernel[1] + r1) * s_.kernel[2] * step_ - begin_ +
                          ((row.image * s_.out[0] + o0) * s_.out[1] + o1) * s_.out[2];
      }
    }
    for (int64_t e = 0; e < s_.stride[2]; ++e) {
      starts_[e] = count;
      for (int64_t i = 0; i < lines; ++i)
        for (int64_t tap = phases_[e]; tap < phases_[e + 1]; ++tap)
          sources_[count++] = {lines_[i] + along_[tap], tap * vectors_};
    }
    starts_[s_.stride[2]] = count;
    const bool plain = !args_.bias && args_.epilogue.empty();
    plain ? store_channels<true>(row, bare) : store_channels<false>(row, bare);
  }

  template <bool Plain>
  void store_channels(const Row& row, int64_t bare) {
    const Source* const sources = sources_.get();
    const int64_t *const starts = starts_.get(), width = s_.in[2];
    const int64_t from = row.from, to = min_of(row.to, vectors_);
    const int64_t stride = s_.stride[2], plane = s_.in_size(),
                  channel_step = s_.kernel_size() * step_;
    const Lanes<T>* const inside = inside_.get();
    const T* columns = columns_;
    T *const line = line_.get(), *const result = args_.result;
    int64_t place =
        ((image_ + row.image) * s_.c + channel_) * plane + (row.i0 * s_.in[1] + row.i1) * width;
    for (int64_t c = 0; c < channels_; ++c, columns += channel_step, place += plane) {
      // The sums of a vector of the elements e, e + stride, ...
      const auto gather = [&](int64_t e, int64_t v) {
        Vec<T> sum = {};
        for (int64_t i = starts[e]; i < starts[e + 1]; ++i)
          sum += inside[sources[i].inside + v].load(columns + sources[i].place + v * kLanes<T>);
        return sum;
      };
      const auto put = [&](int64_t at, Vec<T> sum, int64_t end) {
        const int64_t some = end - at;
        if (some <= 0) return;
        if constexpr (!Plain) {
          sum += args_.bias ? args_.bias[channel_ + c] : T(0);
          if (args_.epilogue.residual)
            sum += load_first(args_.epilogue.residual + place + at, some);
          sum = activate(args_.epilogue, sum);
        }
        store_first(result + place + at, some, sum);
      };
      for (int64_t v = from; v < to; ++v) {
        const int64_t at = stride * v * kLanes<T>;
        const Vec<T> sum = gather(0, v);
        if (stride == 1) {
          put(at, sum, width);
        } else if (stride == 2) {
          const Vec<T> odd = gather(1, v);
          put(at, interleave<T, false>(sum, odd), width);
          put(at + kLanes<T>, interleave<T, true>(sum, odd), width);
        } else {
          store_spaced(line + at, stride, kLanes<T>, sum);
          for (int64_t e = 1; e < stride; ++e)
            store_spaced(line + at + e, stride, kLanes<T>, gather(e, v));
        }
      }
      const int64_t end = min_of(width, to * stride * kLanes<T>);
      for (int64_t at = from * stride * kLanes<T>; stride > 2 && at < end; at += kLanes<T>)
        put(at, load(line + at), width);
      for (int64_t at = width, all = width * (1 + bare); at < all; at += kLanes<T>)
        put(at, Vec<T>{}, all);
    }
  }

  const ops::ConvArgs<T>& args_;
  const ops::ConvShape& s_;
  int64_t image_, channel_, channels_;
  T* columns_;
  int64_t step_, vectors_, segments_, segment_;
  Scratch<int64_t> along_, phases_;  // places of the taps of a line; the first one of each phase
  Scratch<int64_t> lines_;           // of taps of a row
  Scratch<Source> sources_;          // those of a row
  Scratch<int64_t> starts_;
  Scratch<Lanes<T>> inside_;  // of a tap's vector: those of the line of outputs
  Scratch<T> line_;
  int64_t begin_ = 0, end_ = 0, last_ = 0;  // the columns that are there; all
  int64_t row_, rows_end_;                  // rows to store
};

template <class T>
static void gradient_from_columns(const ops::ConvArgs<T>& args) {
  using Tile = GemmTile<T>;
  constexpr int64_t kRows = Tile::kRows;
  const ops::ConvShape& s = args.shape;
  if (s.x_elems() == 0) return;
  const ColumnTasks<T> cut(s);
  const int64_t taps = s.kernel_size(), all = s.k_per_group();
  ops::ConvShape positions;  // grad_y as the input of filters of one tap
  positions.c = all, positions.n = s.n;
  positions.in[2] = positions.out[2] = s.out_size();
  const int64_t panel = all * kRows + 64 / sizeof(T);  // an odd number of lines apart
  const int64_t k_step = s.c_per_group() * taps, panels_of_group = ceil_div(k_step, kRows);
  const T* const kept = args.packed ? args.packed->data : nullptr;
  if (kept && !args.packed->ready) {
    constexpr int64_t kSome = 16;  // panels of a task
    const int64_t parts = ceil_div(panels_of_group, kSome);
    parallel_for(s.groups * parts, [&](int64_t task) {
      const int64_t g = task / parts, first = task % parts * kSome;
      pack_filter_rows(args.weight + g * all * k_step + first * kRows, k_step,
                       min_of(kSome * kRows, k_step - first * kRows), all,
                       args.packed->data + (g * panels_of_group + first) * panel, panel);
    });
    args.packed->ready = true;
  }
  parallel_for(cut.count, [&](int64_t task) {
    const int64_t parts = cut.parts * cut.bands, part = task % parts, band = part % cut.bands;
    const int64_t g = task / (cut.blocks * parts), block = task / parts % cut.blocks;
    const int64_t c = block * cut.channels, image = part / cut.bands * cut.images;
    const int64_t channels = min_of(cut.channels, s.c_per_group() - c);
    const int64_t before = kept ? c * taps % kRows : 0;  // rows of its first panel: other channels'
    const int64_t rows = before + channels * taps;
    const int64_t images = min_of(cut.images, s.n - image);
    const int64_t whole = ceil_div(rows, kRows) * kRows;
    // An odd number of lines between rows; gathering reads a vector before and behind them.
    const int64_t most = min_of(cut.window, images * s.out_size());
    const int64_t step = whole_vectors<T>(most + kLanes<T>) / kLanes<T> | 1;
    Scratch<T> own(kept ? 0 : whole / kRows * panel), columns((whole * step + 2) * kLanes<T>);
    const T* filters = own.get();
    Scratch<T> panels(Tile::kBlockCols * min_of(Tile::kBlockDepth, all));
    if (kept)
      filters = kept + (g * panels_of_group + c * taps / kRows) * panel;
    else
      pack_filter_rows(args.weight + g * all * k_step + c * taps, k_step, rows, all, own.get(),
                       panel);
    GradientRows<T> gradient(args, image, cut.rows_before(s, images, band, cut.bands),
                             cut.rows_before(s, images, band + 1, cut.bands),
                             g * s.c_per_group() + c, channels,
                             &columns[(before * step + 1) * kLanes<T>], step * kLanes<T>);
    const int64_t total = gradient.last();
    const T* grad_y = args.grad_y + (image * s.k + g * all) * s.out_size();
    // The filters of the task that this thread most likely takes next come meanwhile.
    const int64_t next = (task + num_threads()) / parts;
    const bool others = next < s.groups * cut.blocks && next != task / parts;
    const int64_t next_g = next / cut.blocks, next_row = next % cut.blocks * cut.channels * taps;
    const T* const next_filters = kept
                                      ? kept + (next_g * panels_of_group + next_row / kRows) * panel
                                      : args.weight + next_g * all * k_step + next_row;
    int64_t line = 0;
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t begin = gradient.first();
    int64_t done = begin;
    gradient.add(0);
    while (done < total) {
      const int64_t count = min_of(Tile::kBlockCols, total - done);
      const Im2colRuns<T, Tile::kBlockCols, Tile::kCols> runs(positions, grad_y, s.k * s.out_size(),
                                                              done, count);
      const bool first = done == begin, last = done + count == total;
      const auto ahead = [&]() -> Ahead<T> {
        if (!others || !last) return {};
        if (kept) {
          const int64_t at = line++ * min_of(Tile::kBlockDepth, all) * kLine;
          return at < whole / kRows * panel ? Ahead<T>{next_filters + at, kLine} : Ahead<T>{};
        }
        const int64_t of_row = rows / kLine + 1, from = line / of_row * Tile::kBlockDepth;
        if (from >= all) return {};
        return {next_filters + from * k_step + line++ % of_row * kLine, k_step};
      };
      for (int64_t p = 0; p == 0 || p < all; p += Tile::kBlockDepth) {
        const int64_t depth = min_of(Tile::kBlockDepth, all - p);
        runs.pack_tap({0, 0, 0}, p, depth, panels.get());
        for (int64_t i = 0; i < rows; i += kRows) {
          const T* const panel_of_rows = &filters[i / kRows * panel + p * kRows];
          if (kept && first && i + kRows < rows)  // the next one, from beyond L2
            prefetch_line(panel_of_rows + panel, depth * kRows);
          gemm_row(depth, count, panel_of_rows, panels.get(),
                   gradient.room() + (i - before) * step * kLanes<T>, step * kLanes<T>, p > 0,
                   ahead);
        }
      }
      gradient.add(count), done += count;
    }
  });
}

LAMINA_CPU_NAMESPACE_END
