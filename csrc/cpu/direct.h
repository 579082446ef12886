// The direct sum, for conv `direct` and `depthwise`: no unrolled matrix, no packed panel.
//
// Method        Output positions of a band of rows are the vectors, row by row or flattened,
//               whichever takes less; Lanes output channels times Vectors vectors of sums stay in
//               registers over all input channels and taps. Every tap is a shifted load from a
//               padded copy (cpu/phase_plane.h). Sums of few terms leave from the registers, past
//               the caches where the result is large; others pass through a tile.
// Partitioning  image, group, output depth, band of rows, block of output channels.
// Numerics      an output element sums (c, r) in order, in runs of about 256 terms.
// Floor         the FMA peak, or the result at the bandwidth of streaming stores.
#pragma once

#include "cpu/direct_inputs.h"
#include "cpu/direct_outputs.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kLaneBlock = 64;  // output channels that share one copy, or more
// Output rows per band so that the copies of all channels of a group fit kBandElements.
LAMINA_INLINE int64_t band_rows(const ops::ConvShape& s, int64_t channels) {
  const PhasePlane row(s, 1);
  const int64_t per_row = channels * row.size / row.height;
  const int64_t rows = kBandElements / max_of<int64_t>(per_row, 1) - (row.height - 1);
  return min_of(max_of<int64_t>(rows, 1), s.out[1]);
}

// Where a unit's work lies: the padded copy of a band, the terms, and output channel 0 of the
// group.
template <class T>
struct DirectBand {
  const T* x;
  const Term* term;
  int64_t terms, run;  // of a sum in registers
  const T* weight;
  const T* bias;  // or null
  T* y;
  int64_t y_plane;
  bool streamed;  // sums that leave from the registers: past the caches,
  T least;        // cut off below
};

template <class T>
static void find_terms(const DirectPass<T>& pass, const PhasePlane& plane, MetTaps met,
                       Term* terms) {
  const ops::ConvShape& s = pass.shape;
  const int64_t area = s.kernel[1] * s.kernel[2], taps = met.count() * area;
  for (int64_t i = 0; i < taps; ++i) {
    const int64_t r[3] = {met.first + i / area, i / s.kernel[2] % s.kernel[1], i % s.kernel[2]};
    const int64_t offset = plane.offset(s, r[0], r[1], r[2]), index = pass.weight_index(r);
    for (int64_t c = 0; c < s.c_per_group(); ++c)
      terms[c * taps + i] = {c * plane.size + offset, c * pass.weight_channel + index};
  }
}

// `count` positions of an output row in a vector of a band, from lane `from` on; y + to.
struct PositionRun {
  int64_t from, to, count;
};

// The vectors of positions of a band of `rows` rows of a padded copy, and where their sums go.
template <class T>
class BandVectors {
 public:
  const int64_t count;
  const bool whole;  // vectors are neighbours in a row; the last of a row repeat some positions

  // at_once: sums may leave from the registers, if their vectors are whole.
  BandVectors(const DirectPass<T>& pass, const PhasePlane& plane, int64_t rows, bool at_once)
      : BandVectors(pass, plane, rows, Cut(pass, plane, rows, at_once)) {}

  LAMINA_INLINE int64_t first(int64_t i) const { return places_[i].x; }
  LAMINA_INLINE const PositionRun* runs(int64_t i) const { return &runs_[places_[i].run]; }

 private:
  struct Place {
    int64_t x, run;  // in the copy; the first of its runs
  };
  Scratch<Place> places_;
  Scratch<PositionRun> runs_;

  // Row by row or one behind the other, whichever takes fewer vectors; sums that pass through the
  // tile cost as much as some more terms.
  struct Cut {
    int64_t count;
    bool whole, by_rows;

    Cut(const DirectPass<T>& pass, const PhasePlane& plane, int64_t rows, bool at_once) {
      const int64_t columns = pass.shape.out[2];
      const int64_t terms = pass.shape.c_per_group() * pass.shape.kernel_size();
      const int64_t flat = ceil_div(rows * plane.pitch, kLanes<T>);
      const int64_t in_rows = rows * ceil_div(columns, kLanes<T>);
      whole = at_once && columns >= kLanes<T> && in_rows * (terms + 8) <= flat * (terms + 24);
      by_rows = whole || in_rows <= flat;
      count = by_rows ? in_rows : flat;
    }
  };

  BandVectors(const DirectPass<T>& pass, const PhasePlane& plane, int64_t rows, const Cut& cut)
      : count(cut.count), whole(cut.whole), places_(count + 1), runs_(count + rows) {
    const int64_t columns = pass.shape.out[2], width = cut.by_rows ? columns : plane.pitch;
    int64_t row = 0, column = 0, run = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (whole) column = min_of(column, columns - kLanes<T>);
      places_[i] = {row * plane.pitch + column, run};
      for (int64_t done = 0; done < kLanes<T> && row < rows;) {
        const int64_t some = min_of<int64_t>(columns - column, kLanes<T> - done);
        if (some > 0)
          runs_[run++] = {done, row * pass.y_step[1] * pass.y_size[2] + column * pass.y_step[2],
                          some};
        const int64_t step = min_of<int64_t>(width - column, kLanes<T> - done);
        done += cut.by_rows ? kLanes<T> : step, column += step;
        if (column == width) column = 0, ++row;
      }
    }
    places_[count] = {0, run};
  }
};

// sum[Lanes][Vectors] = the terms [term, end) of Lanes output channels at the positions of x.
template <class T, int Lanes, int Vectors>
LAMINA_INLINE void add_terms(const T* const (&x)[Vectors], const Term* term, const Term* end,
                             const T* weight, int64_t lane_step, Vec<T> (&sum)[Lanes][Vectors]) {
  for (; term != end; ++term) {
    const T* factor = weight + term->weight;
    Vec<T> line[Vectors];
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) line[j] = load(x[j] + term->x);
#pragma GCC unroll 8
    for (int i = 0; i < Lanes; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < Vectors; ++j) sum[i][j] += factor[i * lane_step] * line[j];
  }
}

// tile[Lanes][Vectors] = a run of terms, or its sums with what the tile holds.
template <class T, int Lanes, int Vectors>
[[gnu::noinline]] static void direct_tile(const T* const (&x)[Vectors], const Term* term,
                                          const Term* end, const T* weight, int64_t lane_step,
                                          T* tile, bool add) {
  Vec<T> sum[Lanes][Vectors] = {};
  add_terms<T, Lanes, Vectors>(x, term, end, weight, lane_step, sum);
  store_sums<T, Lanes, Vectors>(sum, tile, add);
}

// Where whole vectors of sums go, bias added and cut off below `least`.
template <class T, int Vectors>
struct TileRows {
  T* y[Vectors];
  int64_t plane;  // from an output channel to the next
  const T* bias;  // or null
  T least;
};

// One run of terms, from the registers to y. `to` is read afterwards: it would take registers.
template <class T, int Lanes, int Vectors, bool Streamed>
[[gnu::noinline]] static void direct_rows(const T* const (&x)[Vectors], const Term* term,
                                          const Term* end, const T* weight, int64_t lane_step,
                                          const TileRows<T, Vectors>* to) {
  Vec<T> sum[Lanes][Vectors] = {};
  add_terms<T, Lanes, Vectors>(x, term, end, weight, lane_step, sum);
  __asm__("" : "+r"(to));
  const Vec<T> least = broadcast(to->least);
  T* y[Vectors];
#pragma GCC unroll 8
  for (int j = 0; j < Vectors; ++j) y[j] = to->y[j];
#pragma GCC unroll 8
  for (int i = 0; i < Lanes; ++i) {
    const Vec<T> bias = broadcast(to->bias ? to->bias[i] : T(0));
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j, y[j - 1] += to->plane) {
      const Vec<T> value = sum[i][j] + bias;
      const Vec<T> result = value <= least ? least : value;
      if constexpr (Streamed)
        store_result(y[j], kLanes<T>, result, true);
      else
        store(y[j], result);
    }
  }
}

// Stores the runs of tile[Lanes][Vectors], the sums of output channels from k on.
template <class T, int Lanes, int Vectors>
[[gnu::noinline]] static void store_tile(const DirectPass<T>& pass, const DirectBand<T>& band,
                                         const BandVectors<T>& vectors, int64_t first, int64_t k,
                                         const T* tile) {
  const int64_t step = pass.y_step[2];
  const bool rows = step == 1 && !pass.epilogue.residual;
  for (int i = 0; i < Lanes; ++i) {
    const Vec<T> bias = broadcast(band.bias ? band.bias[k + i] : T(0));
    T* const y = band.y + (k + i) * band.y_plane;
    for (int j = 0; j < Vectors; ++j, tile += kLanes<T>)
      for (auto run = vectors.runs(first + j); run < vectors.runs(first + j + 1); ++run) {
        const Vec<T> sums = load(tile + run->from) + bias;
        if (rows)
          store_first(y + run->to, run->count, activate(pass.epilogue, sums));
        else
          store_epilogue(pass, sums, y + run->to, step, run->count);
      }
  }
}

// Vectors [first, first + Vectors) for the output channels [k, k + Lanes).
template <class T, int Lanes, int Vectors>
static void direct_sums(const DirectPass<T>& pass, const DirectBand<T>& band,
                        const BandVectors<T>& vectors, int64_t first, int64_t k, T* tile) {
  const T* const weight = band.weight + k * pass.weight_lane;
  const Term* const end = band.term + band.terms;
  const T* x[Vectors];
  for (int j = 0; j < Vectors; ++j) x[j] = band.x + vectors.first(first + j);
  if (vectors.whole) {
    TileRows<T, Vectors> to;
    to.plane = band.y_plane, to.bias = band.bias ? band.bias + k : nullptr, to.least = band.least;
    bool aligned = band.streamed;
    for (int j = 0; j < Vectors; ++j) {
      to.y[j] = band.y + k * band.y_plane + vectors.runs(first + j)->to;
      aligned &= reinterpret_cast<uintptr_t>(to.y[j]) % kVectorBytes == 0;
    }
    if (aligned)
      return direct_rows<T, Lanes, Vectors, true>(x, band.term, end, weight, pass.weight_lane, &to);
    return direct_rows<T, Lanes, Vectors, false>(x, band.term, end, weight, pass.weight_lane, &to);
  }
  const Term* term = band.term;
  do {
    const Term* const last = end - term > band.run ? term + band.run : end;
    direct_tile<T, Lanes, Vectors>(x, term, last, weight, pass.weight_lane, tile,
                                   term != band.term);
    term = last;
  } while (term != end);
  store_tile<T, Lanes, Vectors>(pass, band, vectors, first, k, tile);
}

// Vectors [first, last) of a band for some of `lanes` output channels from k on; how many.
template <class T, int Lanes, int Vectors>
static int64_t direct_vectors(const DirectPass<T>& pass, const DirectBand<T>& band,
                              const BandVectors<T>& vectors, int64_t first, int64_t last, int64_t k,
                              int64_t lanes, T* tile) {
  if constexpr (Lanes > 1)
    if (lanes < Lanes)
      return direct_vectors<T, Lanes / 2, Vectors>(pass, band, vectors, first, last, k, lanes,
                                                   tile);
  for (; first + Vectors <= last; first += Vectors)
    direct_sums<T, Lanes, Vectors>(pass, band, vectors, first, k, tile);
  if constexpr (Vectors > 1)
    if (first < last)
      direct_vectors<T, Lanes, (Vectors > 3 ? Vectors / 2 : Vectors - 1)>(
          pass, band, vectors, first, last, k, Lanes, tile);
  return Lanes;
}

// How a convolution is cut: bands of output rows whose copy, and blocks of output channels whose
// weights stay within L2.
struct DirectUnits {
  int64_t block, blocks;  // channels, a multiple of `unit`
  int64_t height, bands;  // rows
  int64_t count;

  LAMINA_INLINE DirectUnits(const ops::ConvShape& s, int64_t unit) {
    const int64_t channels = s.c_per_group(), lanes = s.k_per_group();
    const int64_t terms = max_of<int64_t>(channels * s.kernel_size(), 1);
    const auto cut_lanes = [&](int64_t most) {
      blocks = ceil_div(lanes, ceil_div(most, unit) * unit);
      block = ceil_div(ceil_div(lanes, blocks), unit) * unit;
    };
    const auto others = [&] { return s.n * s.groups * s.out[0] * blocks; };
    cut_lanes(max_of(kLaneBlock, kBlockWeights / terms));
    bands = ceil_div(s.out[1], band_rows(s, channels));
    if (others() * bands < kFewUnits) {  // bands copy the rows between them twice
      const int64_t least = max_of<int64_t>(3 * PhasePlane::extra(s, 1), 1);
      const int64_t tasks = s.out[1] * s.out[2] * block * terms / kTaskTerms;
      const int64_t wanted = min_of(ceil_div(kFewUnits, others()), tasks);
      bands = max_of(bands, min_of(wanted, s.out[1] / least));
    }
    if (others() * bands < kFewUnits) cut_lanes(kLaneBlock);
    height = ceil_div(s.out[1], bands);
    bands = ceil_div(s.out[1], height);
    count = others() * bands;
  }
};

template <class T, int Lanes, int Vectors>
static void direct_convolution(const DirectPass<T>& pass) {
  const ops::ConvShape& s = pass.shape;
  if (s.out_size() == 0 || s.n * s.k == 0) return;  // a phase beyond the last row or column
  if (prefers_outputs(pass)) return outputs_convolution(pass);
  const int64_t channels = s.c_per_group(), lanes = s.k_per_group(), taps = s.kernel_size();
  const DirectUnits cut(s, Lanes);
  const int64_t block = cut.block, blocks = cut.blocks, height = cut.height, bands = cut.bands;
  const PhasePlane largest(s, height);
  const int64_t work = height * largest.pitch * min_of(lanes, block) * channels * taps;
  const bool streamed = is_streamed<T>(s.n * s.k * s.out_size());
  const auto kind = pass.epilogue.kind;
  const int64_t run = max_of<int64_t>(kRunTerms / max_of<int64_t>(taps, 1), 1) * taps;
  const bool at_once = pass.y_step[2] == 1 && !pass.epilogue.residual && channels * taps <= run &&
                       (kind == ops::Activation::identity || kind == ops::Activation::relu);
  const T least = kind == ops::Activation::identity ? -T(__builtin_inf()) : T(0);
  const int64_t grain = max_of<int64_t>(kTaskTerms / max_of<int64_t>(work, 1), 1);
  parallel_ranges(cut.count, grain, [&](int64_t begin, int64_t end) {
    const int64_t slack = kLanes<T> + largest.slack;
    Scratch<T> x(channels * largest.size + slack), tile((Lanes * Vectors + 1) * kLanes<T>);
    Scratch<Term> term(channels * taps);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t first_lane = unit % blocks * block;
      const int64_t row = unit / blocks % bands * height, o0 = unit / (blocks * bands) % s.out[0];
      const int64_t image_group = unit / (blocks * bands * s.out[0]);
      const int64_t n = image_group / s.groups, g = image_group % s.groups;
      const int64_t rows = min_of(height, s.out[1] - row);
      const PhasePlane plane(s, rows);
      const MetTaps met(s, 0, o0);
      for (int64_t j = 0; j < slack; ++j) x[channels * plane.size + j] = 0;
      for (int64_t c = 0; c < channels; ++c)
        fill_phase_plane(s, plane, pass.x + (n * s.c + g * channels + c) * s.in_size(), o0, row,
                         met, &x[c * plane.size]);
      find_terms(pass, plane, met, term.get());
      const int64_t y_plane = pass.y_size[0] * pass.y_size[1] * pass.y_size[2];
      const int64_t first_row = pass.y_offset[1] + row * pass.y_step[1];
      T* y =
          pass.y + (n * s.k + g * lanes) * y_plane + pass.y_offset[2] +
          ((pass.y_offset[0] + o0 * pass.y_step[0]) * pass.y_size[1] + first_row) * pass.y_size[2];
      const BandVectors<T> vectors(pass, plane, rows, at_once);
      const DirectBand<T> band = {x.get(),
                                  term.get(),
                                  channels * met.count() * s.kernel[1] * s.kernel[2],
                                  run,
                                  pass.weight + g * pass.weight_group,
                                  pass.bias ? pass.bias + g * lanes : nullptr,
                                  y,
                                  y_plane,
                                  streamed,
                                  least};
      const int64_t last_lane = min_of(lanes, first_lane + block);
      for (int64_t k = first_lane; k < last_lane;)
        k += direct_vectors<T, Lanes, Vectors>(pass, band, vectors, 0, vectors.count, k,
                                               last_lane - k, tile.get());
    }
    finish_streams(streamed);
  });
}

template <class T, int Lanes, int Vectors>
static void direct_fprop(const ops::ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  DirectPass<T> pass{};
  pass.shape = s;
  pass.x = args.x, pass.weight = args.weight, pass.bias = args.bias, pass.y = args.result;
  pass.epilogue = args.epilogue;
  pass.weight_channel = s.kernel_size();
  pass.weight_lane = s.c_per_group() * pass.weight_channel;
  pass.weight_group = s.k_per_group() * pass.weight_lane;
  for (int axis = 0; axis < 3; ++axis) {
    pass.kernel[axis] = s.kernel[axis], pass.tap_step[axis] = 1;
    pass.y_size[axis] = s.out[axis], pass.y_step[axis] = 1;
  }
  if (prefers_inputs(s, kLanes<float>)) return inputs_convolution(pass);
  direct_convolution<T, Lanes, Vectors>(pass);
}

// A phase that no tap reaches: sums of nothing.
template <class T>
static void fill_phase(const DirectPass<T>& pass) {
  const ops::ConvShape& s = pass.shape;
  const int64_t* out = s.out;
  const int64_t plane_size = pass.y_size[0] * pass.y_size[1] * pass.y_size[2];
  parallel_for(s.n * s.k, [&](int64_t plane) {
    const Vec<T> value = broadcast(pass.bias ? pass.bias[plane % s.k] : T(0));
    for (int64_t j0 = 0; j0 < out[0]; ++j0)
      for (int64_t j1 = 0; j1 < out[1]; ++j1) {
        const int64_t i0 = pass.y_offset[0] + j0 * pass.y_step[0];
        const int64_t i1 = pass.y_offset[1] + j1 * pass.y_step[1];
        T* row = pass.y + plane * plane_size + (i0 * pass.y_size[1] + i1) * pass.y_size[2] +
                 pass.y_offset[2];
        for (int64_t j2 = 0; j2 < out[2]; j2 += kLanes<T>)
          store_epilogue(pass, value, row + j2 * pass.y_step[2], pass.y_step[2], out[2] - j2);
      }
  });
}

template <class T, int Lanes, int Vectors>
static void direct_dgrad(const ops::ConvArgs<T>& args) {
  const ops::ConvShape& s = args.shape;
  for (int64_t index = 0; index < conv_phases(s); ++index) {
    const ConvPhase phase = conv_phase(s, index);
    DirectPass<T> pass{};
    pass.shape = phase.shape;
    pass.x = args.grad_y, pass.weight = args.weight, pass.bias = args.bias, pass.y = args.result;
    pass.epilogue = args.epilogue;
    pass.weight_lane = s.kernel_size();
    pass.weight_channel = s.c_per_group() * pass.weight_lane;
    pass.weight_group = s.k_per_group() * pass.weight_channel;
    for (int axis = 0; axis < 3; ++axis) {
      pass.kernel[axis] = s.kernel[axis];
      pass.tap_first[axis] = phase.first[axis], pass.tap_step[axis] = -phase.step[axis];
      pass.y_size[axis] = s.in[axis];
      pass.y_step[axis] = s.stride[axis], pass.y_offset[axis] = phase.offset[axis];
    }
    if (phase.shape.kernel_size() == 0)
      fill_phase(pass);
    else
      direct_convolution<T, Lanes, Vectors>(pass);
  }
}

LAMINA_CPU_NAMESPACE_END
