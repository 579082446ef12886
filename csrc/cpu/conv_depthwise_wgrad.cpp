// conv, depthwise: the gradient of the weights.
//
// Method        A tile of up to 8 rows by a vector of columns of grad_y stays in registers. For
//               every column of taps each row of x is loaded once, shifted, and multiplied with all
//               rows of grad_y that it meets: one vector of sums per tap, in L1 between tiles.
//               Edges are masked loads. A row alone keeps the sums of up to 7 taps in registers and
//               passes over a copy of its row of x with zeros around. Taps along a depth take pair
//               after pair of planes. Small planes of images slide (cpu/depthwise_slide.h). See
//               cpu/depthwise.h for rows and strides; other strides take the padded copy of
//               direct.h.
// Partitioning  blocks of output channels, over all images.
// Numerics      lane by lane over planes until a lane has kRun products, then over lanes, the runs
//               in order.
// Floor         x and grad_y once through the caches, and the products at the FMA peak.
#include "cpu/depthwise.h"
#include "cpu/depthwise_slide.h"
#include "cpu/direct_wgrad.h"
#include "ops/instantiate.h"

LAMINA_CPU_NAMESPACE_BEGIN

using ops::ConvArgs;
using ops::ConvShape;

inline constexpr int64_t kRun = 512;              // products of a lane at a stretch
inline constexpr int64_t kSumsBytes = 16 * 1024;  // of a task: they stay in L1

// sums[column of taps][kTaps] += grad_y times x for one vector of columns of grad_y, B rows.
template <class T, int B, int ST, int kTaps>
[[gnu::noinline]] static void correlate(const T* const* rows, int64_t width, int64_t place,
                                        const ColumnClass& columns, const Vec<T>* grad_y,
                                        Vec<T>* sums) {
  Vec<T> factor[B];
#pragma GCC unroll 8
  for (int o = 0; o < B; ++o) factor[o] = grad_y[o];
  for (int64_t u = 0; u < columns.taps; ++u, place += columns.step, sums += kTaps)
    with_loads<T, ST>(-place, width - place, [&](const auto& load_row) {
      Vec<T> sum[kTaps];
#pragma GCC unroll 8
      for (int r = 0; r < kTaps; ++r) sum[r] = sums[r];
#pragma GCC unroll 32
      for (int i = 0; i < (B - 1) * ST + kTaps; ++i) {
        const Vec<T> line = load_row(rows[i] + place);
#pragma GCC unroll 8
        for (int o = 0; o < B; ++o)
          if (i - ST * o >= 0 && i - ST * o < kTaps) sum[i - ST * o] += factor[o] * line;
      }
#pragma GCC unroll 8
      for (int r = 0; r < kTaps; ++r) sums[r] = sum[r];
    });
}

// sums[kTaps] += a row alone of grad_y times the row of x at the columns of kTaps taps.
template <class T, int ST, int kTaps>
[[gnu::noinline]] static void correlate_row(const T* x, int64_t step, const T* grad_y,
                                            int64_t width, Vec<T>* sums) {
  Vec<T> sum[kTaps];
#pragma GCC unroll 8
  for (int u = 0; u < kTaps; ++u) sum[u] = sums[u];
  for (int64_t column = 0; column < width; column += kLanes<T>) {
    const Vec<T> factor = load_first(grad_y + column, width - column);
#pragma GCC unroll 8
    for (int u = 0; u < kTaps; ++u)
      sum[u] += factor * load_columns<T, ST>(x + ST * column + u * step);
  }
#pragma GCC unroll 8
  for (int u = 0; u < kTaps; ++u) sums[u] = sum[u];
}

// The rows of one plane pair, each alone, against row t of the taps; framed holds a row of x in its
// frame, of which only x changes.
template <class T, int ST>
static void correlate_rows(const ConvShape& s, int64_t t, const T* x, const T* grad_y,
                           const T* x_end, const T* grad_y_end, const RowFrame& frame, T* framed,
                           Vec<T>* sums) {
  const ColumnClass columns = column_class(s);
  for (int64_t index = 0; index < row_classes(s); ++index) {
    const RowClass row = row_class(s, index);
    const int64_t from = row.x_first + t * row.x_step;
    if (from < 0 || from >= s.in[1]) continue;
    const T* const source = x + from * s.in[2];
    const T* const line = grad_y + row.y_first * s.out[2];
    prefetch_ahead(line, s.out[2], grad_y_end);
    prefetch_ahead(source, s.in[2], x_end);
    __builtin_memcpy(framed + frame.lead, source, sizeof(T) * frame.columns);
    for (int64_t u = 0; u < columns.taps;)
      u += with_tap_rows(columns.taps - u, [&](auto taps) {
        correlate_row<T, ST, taps.value>(framed + frame.lead + columns.first + u * columns.step,
                                         columns.step, line, s.out[2], sums + u);
      });
  }
}

// The rows of one plane pair against kTaps rows of taps from t on.
template <class T, int B, int ST, int kTaps>
static void correlate_planes(const ConvShape& s, int64_t t, const T* x, const T* grad_y,
                             const T* x_end, const T* grad_y_end, const T* zeros, Vec<T>* sums) {
  const int64_t in[2] = {s.in[1], s.in[2]};
  const ColumnClass columns = column_class(s);
  for (int64_t index = 0; index < row_classes(s); ++index) {
    RowClass row = row_class(s, index);
    row.x_first += t * row.x_step;
    const int64_t x_step = ST * row.x_step * s.in[2], y_step = row.y_step * s.out[2];
    for (int64_t j = 0; j < row.count; j += B) {
      constexpr int kRows = (B - 1) * ST + kTaps;
      const T* pointers[kRows];
      find_rows(row, j, kRows, ST, x, in, zeros, pointers);
      const int64_t count = min_of<int64_t>(B, row.count - j);
      const T* first = grad_y + row.y_first * s.out[2] + j * y_step;
      prefetch_ahead(first, count * y_step, grad_y_end);
      prefetch_ahead(x + j * x_step, count * x_step, x_end);
      for (int64_t column = 0; column < s.out[2]; column += kLanes<T>) {
        Vec<T> lines[B];
#pragma GCC unroll 8
        for (int o = 0; o < B; ++o)
          lines[o] =
              o < count ? load_lanes(first + o * y_step + column, 0, s.out[2] - column) : Vec<T>{};
        correlate<T, B, ST, kTaps>(pointers, s.in[2], columns.first + ST * column, columns, lines,
                                   sums);
      }
    }
  }
}

template <class T, int B, int ST>
static void depthwise_wgrad(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  constexpr bool kAlone = B == 1;
  constexpr int64_t kMostTaps = kAlone ? 1 : kVectorBytes == 64 ? 7 : 5;
  const ColumnClass columns = column_class(s);
  const RowFrame frame = kAlone ? row_frame<T, ST, 1>(&columns, s.in[2], s.out[2]) : RowFrame{};
  const int64_t width = kAlone ? frame.width : s.in[2];
  const int64_t taps = s.kernel_size(), in_size = s.in_size(), out_size = s.out_size();
  const int64_t in_plane = s.in[1] * s.in[2], out_plane = s.out[1] * s.out[2];
  const int64_t sums_size = s.kernel[2] * min_of(s.kernel[1], kMostTaps);
  const int64_t fit = kSumsBytes / (sums_size * kVectorBytes);
  const int64_t worth = kDepthwiseTask / max_of<int64_t>(s.n * out_size * taps, 1);
  const int64_t block = max_of<int64_t>(min_of(fit, worth), 1);
  parallel_ranges(s.k, block, [&](int64_t begin, int64_t end) {
    const int64_t all = (end - begin) * sums_size * kLanes<T>;
    Scratch<T> zeros(width), lanes(all);
    for (int64_t i = 0; i < width; ++i) zeros[i] = 0;
    for (int64_t i = 0; i < all; ++i) lanes[i] = 0;
    for (int64_t i = begin * taps; i < end * taps; ++i) args.result[i] = 0;
    const int64_t terms = s.out[1] * ceil_div(s.out[2], kLanes<T>);  // of a lane and plane
    const auto add_rows = [&](int64_t t0, int64_t t, auto rows) {
      constexpr int kTaps = rows.value;
      int64_t run = 0;
      for (int64_t n = 0; n < s.n; ++n)
        for (int64_t o0 = 0; o0 < s.out[0]; ++o0) {
          const int64_t i0 = o0 * s.stride[0] - s.pad[0] + t0 * s.dilation[0];
          const bool inside = i0 >= 0 && i0 < s.in[0];
          if (inside) run += terms;
          const bool flush = run >= kRun || (n + 1 == s.n && o0 + 1 == s.out[0]);
          if (flush) run = 0;
          for (int64_t k = begin; k < end; ++k) {
            Vec<T>* sums = reinterpret_cast<Vec<T>*>(&lanes[(k - begin) * sums_size * kLanes<T>]);
            if (inside) {
              const T* const x = args.x + (n * s.c + k / s.k_per_group()) * in_size + i0 * in_plane;
              const T* const grad_y = args.grad_y + (n * s.k + k) * out_size + o0 * out_plane;
              const T* const x_end = args.x + s.n * s.c * in_size;
              const T* const grad_y_end = args.grad_y + s.n * s.k * out_size;
              if constexpr (kAlone)
                correlate_rows<T, ST>(s, t, x, grad_y, x_end, grad_y_end, frame, zeros.get(), sums);
              else
                correlate_planes<T, B, ST, kTaps>(s, t, x, grad_y, x_end, grad_y_end, zeros.get(),
                                                  sums);
            }
            if (!flush) continue;
            for (int64_t u = 0; u < s.kernel[2]; ++u)
              for (int r = 0; r < kTaps; ++r, ++sums) {
                const int64_t row = t0 * s.kernel[1] + t + r;
                args.result[k * taps + row * s.kernel[2] + u] += sum_lanes<T>(*sums);
                *sums = Vec<T>{};
              }
          }
        }
    };
    for (int64_t t0 = 0; t0 < s.kernel[0]; ++t0)
      for (int64_t t = 0; t < s.kernel[1];)
        if constexpr (kAlone)
          add_rows(t0, t++, TapRows<1>());
        else
          t += with_tap_rows(s.kernel[1] - t, [&](auto rows) { add_rows(t0, t, rows); });
    for (int64_t i = begin * taps; i < end * taps; ++i)
      if (!(args.result[i] - args.result[i] == T(0)))
        args.result[i] = exact_weight_gradient(args, i / taps, 0, i % taps);
  });
}

template <class T>
void conv_wgrad_depthwise(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  if (slides(s)) {
    if (s.kernel[1] == 3) return slide_wgrad<T, 3>(args);
    if constexpr (kVectorBytes == 64) return slide_wgrad<T, 5>(args);
  }
  if (!regular_rows(s)) return direct_wgrad<T, 1, 3>(args);
  const int64_t rows = rows_per_tile(row_class(s, 0).count);
  if (s.stride[2] == 1) {
    if (rows == 8) return depthwise_wgrad<T, 8, 1>(args);
    if (rows == 7) return depthwise_wgrad<T, 7, 1>(args);
    if (rows == 4) return depthwise_wgrad<T, 4, 1>(args);
    return depthwise_wgrad<T, 1, 1>(args);
  }
  if (rows >= 7) return depthwise_wgrad<T, 7, 2>(args);
  if (rows == 4) return depthwise_wgrad<T, 4, 2>(args);
  depthwise_wgrad<T, 1, 2>(args);
}

LAMINA_INSTANTIATE(conv_wgrad_depthwise, ConvArgs)

LAMINA_CPU_NAMESPACE_END
