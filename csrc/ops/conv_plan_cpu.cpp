// The rules of the CPU's convolutions: what each algorithm can run, its workspace and its cost.
// Those in bfloat16 are in conv_plan_bf16.cpp.
#include <algorithm>
#include <cmath>

#include "ops/conv_plan.h"
#include "shared/conv_parts.h"
#include "shared/conv_phase.h"
#include "shared/fft_tiles.h"
#include "shared/implicit_gemm.h"
#include "shared/winograd_blocks.h"
#include "shared/winograd_rows.h"

namespace lamina::ops {

ConvShape forward_shape(ConvPass pass, const ConvShape& s) {
  return pass == ConvPass::dgrad ? conv_phase(s, 0).shape : s;
}

static std::string needs_stride_1(const ConvShape& s) {
  if (s.stride[1] != 1 || s.stride[2] != 1)
    return "needs stride 1, got (" + std::to_string(s.stride[1]) + ", " +
           std::to_string(s.stride[2]) + ")";
  return {};
}
static std::string needs_plane_at_stride_1(const ConvShape& s) {
  if (s.in[0] != 1 || s.out[0] != 1 || s.kernel[0] != 1) return "needs one or two spatial axes";
  return needs_stride_1(s);
}

static std::string needs_tiles(const ConvShape& s, int64_t side) {
  if (s.kernel[1] != side || s.kernel[2] != side)
    return "needs a " + std::to_string(side) + "x" + std::to_string(side) + " filter, got " +
           std::to_string(s.kernel[1]) + "x" + std::to_string(s.kernel[2]);
  return {};
}

std::string needs_winograd(ConvPass, const ConvShape& s) {
  const std::string reason = needs_tiles(s, 3);
  return reason.empty() ? needs_plane_at_stride_1(s) : reason;
}
static std::string needs_unit_steps(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::dgrad && s.stride[0] != 1)
    return "needs stride 1, got " + std::to_string(s.stride[0]) + " along the depth";
  return needs_stride_1(s);
}
// Planes of a volume, too.
static std::string needs_winograd_planes(ConvPass pass, const ConvShape& s, int64_t side) {
  const std::string reason = needs_tiles(s, side);
  return reason.empty() ? needs_unit_steps(pass, s) : reason;
}
static std::string needs_winograd3x3(ConvPass pass, const ConvShape& s) {
  return needs_winograd_planes(pass, s, 3);
}
static std::string needs_winograd5x5(ConvPass pass, const ConvShape& s) {
  constexpr int64_t kFew = 512;  // their sum is more precise than Winograd's transforms
  if (pass == ConvPass::wgrad && s.n * s.out_size() < kFew)
    return "needs " + std::to_string(kFew) + " output positions, got " +
           std::to_string(s.n * s.out_size());
  return needs_winograd_planes(pass, s, 5);
}

std::string needs_fft(ConvPass, const ConvShape& s) {
  constexpr int64_t kLargest = kLargestFft * 3 / 4;
  for (int axis = 1; axis < 3; ++axis)
    if (FftTiles::span(s, axis) > kLargest)
      return "needs filters that span at most " + std::to_string(kLargest) + " positions, got " +
             std::to_string(FftTiles::span(s, axis));
  return needs_plane_at_stride_1(s);
}

namespace {

// Costs count multiply-adds at the speed of the direct kernel; the factors are fitted to medians of
// `lamina bench conv` over all passes (AVX-512, two cores). Only their order matters.
constexpr double kMacsPerMove = 8;  // of a float through the caches

// Of an output element that leaves the registers: what few products do not hide.
constexpr double kMacsPerGemmResult = 33;
double results(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return static_cast<double>(s.weight_elems());
  return static_cast<double>(pass == ConvPass::dgrad ? s.n * s.c * s.in_size()
                                                     : s.n * s.k * s.out_size());
}
// Floats of the kernels' vectors. With half of them (AVX2) products take twice as long, and what is
// copied weighs less beside them.
int64_t vector_lanes() {
  return int64_t{4} << static_cast<int>(isa());
}
double whole_vectors(int64_t count) {
  return static_cast<double>((count + vector_lanes() - 1) / vector_lanes() * vector_lanes());
}
// What a call of an unrolling algorithm costs before its first product, in the smallest shapes.
constexpr double kMacsPerIm2col = 40e3, kMacsPerImplicitGemm = 25e3;

std::string never(ConvPass, const ConvShape&) {
  return {};
}
int64_t no_workspace(ConvPass, const ConvShape&) {
  return 0;
}
double filters(const ConvShape& s) {
  return static_cast<double>(s.k * s.c_per_group());
}

// Multiply-adds of a pass as a convolution of stride 1 computes it, if that is its stride: with all
// taps of all results, where grad_y is smaller than grad_x.
double computed_macs(ConvPass pass, const ConvShape& s) {
  if (pass != ConvPass::dgrad || conv_phases(s) > 1) return static_cast<double>(s.macs());
  return static_cast<double>(forward_shape(pass, s).macs());
}

// ---- direct and depthwise

// Results beyond L2 that other algorithms write in short pieces of many rows at a time.
double far_results(ConvPass pass, const ConvShape& s) {
  constexpr double kInL2 = 1 << 21, kMacsPerFarResult = 15;
  return results(pass, s) > kInL2 ? kMacsPerFarResult * results(pass, s) : 0;
}
// Few terms of rows that fill a vector: the sums leave from the registers, row by row.
bool leaves_at_once(ConvPass pass, const ConvShape& s) {
  constexpr int64_t kRunTerms = 256;
  return pass == ConvPass::fprop && s.out[2] >= vector_lanes() &&
         s.c_per_group() * s.kernel_size() <= kRunTerms;
}
double direct_stored(ConvPass pass, const ConvShape& s) {
  const double kMacsPerResult = !leaves_at_once(pass, s)         ? 25
                                : s.out[2] % vector_lanes() == 0 ? 8
                                                                 : 12;
  // Phases of a volume write every other element of many rows.
  const bool scattered = pass == ConvPass::dgrad && s.in[0] > 1 && s.stride[2] > 1;
  return (scattered ? 2 : 1) * kMacsPerResult * results(pass, s);
}
// Vectors of 8 output channels; those left over run four, two and one at a time.
// Positions come in vectors along a row or, between the rows of the padded copy too, across rows.
// Filters are read where they lie: beyond L2 that costs, most of all for dgrad, whose neighbours
// lie far apart. A single tap does not pay for the copy; strides that vectors cannot split make it
// slow; what a tile reads of many channels exceeds L1.
double direct_cost(ConvPass pass, const ConvShape& s) {
  // Where grad_y has few positions, most taps of a result meet the padding.
  constexpr int64_t kDeep = 32;
  const bool few = 4 * s.out_size() <= s.in_size() && s.k_per_group() >= kDeep;
  const double macs = few ? computed_macs(pass, s) : static_cast<double>(s.macs());
  const bool neighbours = s.dilation[2] == greatest_divisor(s.stride[2], s.dilation[2]) &&
                          s.kernel[2] > s.stride[2] / s.dilation[2];
  if (pass == ConvPass::wgrad && neighbours && 2 * s.k_per_group() >= vector_lanes()) {
    constexpr double kPositionsPerBand = 20;  // vectors are outputs
    const double whole = whole_vectors(s.k_per_group()) / static_cast<double>(s.k_per_group());
    // Short vectors load every factor by an instruction of its own; planes are transposed for few.
    const bool wide = vector_lanes() >= 16, few = s.kernel[0] > 1 && s.c_per_group() <= 16;
    const double product = !wide ? 1.27 : few ? 1 : 1.15;
    const double transposed = wide ? 0 : 21 * static_cast<double>(s.n * s.k * s.out_size());
    const double positions = static_cast<double>(std::clamp<int64_t>(s.out[1] * s.out[2], 1, 512));
    const double run = static_cast<double>(s.kernel[2]) * static_cast<double>(s.dilation[2]) /
                       static_cast<double>(s.stride[2]);  // neighbours among the taps
    return macs * whole * (product + kPositionsPerBand / positions) *
               (s.stride[2] > 1 ? 1 + 6 / (run * run) : 1) +
           transposed;
  }
  if (pass == ConvPass::wgrad) {  // every sum over positions ends in a sum over vector lanes
    constexpr double kMacsPerSum = 450;
    const bool alone = s.k_per_group() < 4 || s.kernel_size() < 3;  // not in tiles of sums
    return (alone ? 8 : 2) * macs + kMacsPerSum * static_cast<double>(s.n * s.weight_elems());
  }
  constexpr int64_t kWeightsInL2 = int64_t{1} << 18;
  const ConvShape shape = pass == ConvPass::dgrad ? conv_phase(s, 0).shape : s;
  const int64_t lanes = shape.k_per_group(), stride = shape.stride[2];
  const int64_t pitch =
      shape.out[2] + std::max<int64_t>(shape.kernel[2] - 1, 0) * shape.dilation[2] / stride;
  const double plane = static_cast<double>(std::max<int64_t>(shape.out[1] * shape.out[2], 1));
  const double by_rows = static_cast<double>(shape.out[1]) * whole_vectors(shape.out[2]);
  const double computed =
      leaves_at_once(pass, s) ? by_rows : std::min(whole_vectors(shape.out[1] * pitch), by_rows);
  const bool far = s.weight_elems() > kWeightsInL2;
  constexpr double kInL1 = 8192;
  const double tile = static_cast<double>(3 * vector_lanes());
  const double per_product = vector_lanes() >= 16 ? 1.05 : 1.15;
  const double window =
      static_cast<double>(shape.c_per_group() * shape.kernel[0] * shape.kernel[1]) *
      (tile * static_cast<double>(stride) + static_cast<double>(shape.kernel[2]));
  const double crowded = 1 + 0.35 * std::clamp(window / kInL1 - 1, 0.0, 1.0);
  // What tasks are made of: lines, and blocks of output channels.
  const int64_t lines = s.n * s.groups * shape.out[0] * shape.out[1] * ((lanes + 63) / 64);
  const double idle = lines < 2 ? 2 : lines < 4 ? 1.25 : 1;
  const double kMacsPerCopied = stride == 1 || stride == 2 || stride == 4 ? 10 : 50;
  // Each plane of a volume of results has its own copy of the planes that it meets.
  const double met = static_cast<double>(s.kernel[0] * s.out[0] / std::max<int64_t>(s.in[0], 1));
  double copies = s.kernel[0] > 1 ? 2.5 * std::max(met, 1.0) : 1;
  if (s.kernel[0] > 1 && pass == ConvPass::dgrad) copies = 1.5 * static_cast<double>(s.kernel[0]);
  const double copied = static_cast<double>(pass == ConvPass::dgrad ? s.y_elems() : s.x_elems());
  return macs * static_cast<double>(lanes + lanes % 8 / 2) / static_cast<double>(lanes) * computed /
             plane * (far ? (pass == ConvPass::dgrad ? 3 : 1.15) : 1) *
             ((s.kernel[0] > 1 ? shape : s).kernel_size() == 1 ? 1.4 : per_product * crowded) *
             (conv_phases(s) > 1 && pass == ConvPass::dgrad ? 1.5 : 1) * idle +
         direct_stored(pass, s) + kMacsPerCopied * copies * copied;
}

std::string needs_depthwise(ConvPass, const ConvShape& s) {
  if (s.c_per_group() == 1) return {};
  return "needs one input channel a group, got " + std::to_string(s.c_per_group());
}
// One output channel at a time: with several of them an input channel, direct reads a row for 8.
// Strides take every other element of twice the loads, those above 2 a padded copy.
double depthwise_cost(ConvPass pass, const ConvShape& s) {
  if (s.k_per_group() == 1) {  // results leave by whole vectors
    const double stored = pass == ConvPass::wgrad ? 0 : direct_stored(pass, s);
    return 0.8 * (direct_cost(pass, s) - stored);
  }
  const int64_t stride = s.stride[2];
  const double backward = s.kernel[0] > 1 ? 8 : stride == 1 ? 1.2 : stride == 2 ? 1.9 : 3.2;
  if (pass == ConvPass::dgrad) return backward * static_cast<double>(s.macs());
  const double per_mac = stride == 1 ? 1.2 : stride == 2 ? 2.8 : 5;
  return per_mac * static_cast<double>(s.macs()) + far_results(pass, s);
}

// ---- im2col and implicit GEMM

// One col matrix of one image and group.
int64_t im2col_elements(ConvPass, const ConvShape& s) {
  return s.c_per_group() * s.kernel_size() * s.out_size();
}
// The col matrix is written once, packed and read, or gathered for dgrad; positions of an image are
// multiplied in whole vectors.
double im2col_cost(ConvPass pass, const ConvShape& s) {
  const double kMacsPerWeight = pass == ConvPass::wgrad ? 0 : 20;
  const double moves = pass == ConvPass::dgrad ? 12 : 4;
  const double moved = moves * static_cast<double>(s.n * s.groups * im2col_elements(pass, s));
  const int64_t positions = std::max<int64_t>(s.out_size(), 1);
  const double whole =
      pass == ConvPass::wgrad ? 1 : whole_vectors(positions) / static_cast<double>(positions);
  return (pass == ConvPass::wgrad ? 1.4 : 1.2) * whole * static_cast<double>(s.macs()) +
         kMacsPerMove * moved + kMacsPerWeight * static_cast<double>(s.weight_elems()) +
         kMacsPerGemmResult * results(pass, s) + kMacsPerIm2col;
}

// Of all filters, in whole panels of up to 8.
int64_t panel_elements(ConvPass pass, const ConvShape& s) {
  const int64_t rows = pass == ConvPass::fprop ? s.k_per_group() : s.c_per_group();
  return s.weight_elems() / std::max<int64_t>(rows, 1) * (rows + 7);
}
int64_t implicit_gemm_elements(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return ImplicitGemmGradient(s).workspace_elements(s);
  if (pass == ConvPass::dgrad && in_columns(s)) return 0;
  if (in_parts(pass, s)) return panel_elements(pass, s);
  const ConvShape shape = forward_shape(pass, s);
  return ImplicitGemm(shape).workspace_elements(shape);
}
// Where few positions share the filters. Those of a forward pass in one part come from memory no
// faster than a task packs them into L1.
PackedForm packed_panels(ConvPass pass, const ConvShape& s) {
  constexpr int64_t kMostPositions = 1024;
  enum Form { columns, parts, depth_blocks };
  if (s.n * s.out_size() > kMostPositions) return {};
  if (pass == ConvPass::dgrad && in_columns(s)) {  // panels a line or two apart
    const int64_t rows = s.c_per_group() * s.kernel_size();
    const int64_t panel_rows = (rows + 7) / 8 * 8;
    return {s.groups * (panel_rows * s.k_per_group() + (rows + 3) / 4 * 16), columns};
  }
  if (in_parts(pass, s)) return {panel_elements(pass, s), parts};
  return {pass == ConvPass::dgrad ? panel_elements(pass, s) : 0, depth_blocks};
}
// Vectors of filters; grad_y is transposed once for every 288 rows of the unrolled input.
double implicit_gemm_wgrad_cost(const ConvShape& s) {
  constexpr int64_t kVector = 16, kRows = 8;
  constexpr double kMacsPerTransposed = 12, kMacsPerWeight = 100;
  const auto whole = [](int64_t count, int64_t unit) {
    return static_cast<double>((count + unit - 1) / unit * unit);
  };
  const int64_t rows = s.c_per_group() * s.kernel_size();
  const double positions = static_cast<double>(s.n * s.out_size());
  const double lanes = static_cast<double>(s.groups) * whole(s.k_per_group(), kVector);
  return 1.1 * inside_share(s) * lanes * whole(rows, kRows) * positions +
         kMacsPerTransposed * lanes * positions * std::ceil(static_cast<double>(rows) / 288) +
         kMacsPerWeight * static_cast<double>(s.weight_elems());
}
// All planes of columns that a row of a volume meets are kept, and move with every block of
// positions; every task finds all rows.
double kept_columns_cost(const ConvShape& s) {
  constexpr double kMacsPerMoved = 1.5, kMacsPerRow = 11e3;
  constexpr int64_t kBlock = 512, kSums = 1 << 16, kMostRows = 144;
  if (s.in[0] == 1) return 0;
  const int64_t met = (s.kernel[0] - 1) * s.dilation[0] / s.stride[0] + 1;
  const int64_t window = std::min(met, s.out[0]) * s.out[1] * s.out[2];
  const int64_t taps = s.kernel_size(), unit = 8 / greatest_divisor(8, taps);
  const int64_t fit = std::min(kMostRows, kSums / (window + kBlock)) / taps;
  const int64_t channels = std::max<int64_t>({fit, unit * taps <= kMostRows ? unit : 1, 1});
  const int64_t tasks = s.groups * ((s.c_per_group() + channels - 1) / channels);
  const double columns = static_cast<double>(s.c * taps) * static_cast<double>(s.n * s.out_size());
  return kMacsPerMoved * columns * static_cast<double>(window) / kBlock +
         kMacsPerRow * static_cast<double>(s.n * s.in[0] * s.in[1] * tasks);
}
// A gradient from columns: grad_y is packed once for about 128 columns of taps, and what they sum
// up to is gathered.
double implicit_gemm_columns_cost(const ConvShape& s) {
  constexpr double kMacsPerWeight = 14, kMacsPerColumn = 5, kMacsPerPacked = 3;
  const double positions = static_cast<double>(s.n * s.out_size());
  const int64_t panels = (s.c_per_group() * s.kernel_size() + 7) / 8;  // of filters
  const double columns = 8 * static_cast<double>(panels);
  const int64_t alone = s.n * s.out_size() % 48 == 1 ? 1 : 0;  // with others, in GemmTile::kBeyond
  const double padded = whole_vectors(s.n * s.out_size() - alone) + static_cast<double>(alone);
  return kept_columns_cost(s) +
         padded * static_cast<double>(s.k) * (columns + kMacsPerPacked * std::ceil(columns / 128)) +
         kMacsPerWeight * static_cast<double>(s.weight_elems()) +
         kMacsPerColumn * positions * columns * static_cast<double>(s.groups) +
         kMacsPerGemmResult * results(ConvPass::dgrad, s);
}
// Products of whole panels of 8 filters; each panel of the unrolled input is packed once for up to
// 512 of them, and so are the filters.
double implicit_gemm_cost(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return implicit_gemm_wgrad_cost(s) + kMacsPerImplicitGemm;
  if (pass == ConvPass::dgrad && in_columns(s))
    return implicit_gemm_columns_cost(s) + kMacsPerImplicitGemm;
  constexpr int64_t kPanel = 8, kBlock = 512;
  constexpr double kMacsPerWeight = 17, kMacsPerWeightInParts = 34;
  const double kMacsPerPacked = pass == ConvPass::fprop && s.stride[2] > 1 ? 34 : 17;
  const int64_t filters = pass == ConvPass::dgrad ? s.c_per_group() : s.k_per_group();
  const double whole =
      static_cast<double>((filters + kPanel - 1) / kPanel * kPanel) / static_cast<double>(filters);
  double macs = computed_macs(pass, s), others = 0;
  if (in_parts(pass, s)) {  // in whole vectors
    macs = 0;
    for_each_part(pass, s, [&](const ConvPart& part) {
      macs += whole_vectors(part.shape.n * part.shape.out_size()) *
              static_cast<double>(part.shape.kernel_size() * s.k * s.c_per_group());
    });
    others = (kMacsPerWeightInParts - kMacsPerWeight) * static_cast<double>(s.weight_elems());
  }
  const double packed =
      macs / static_cast<double>(filters) * static_cast<double>((filters + kBlock - 1) / kBlock);
  return 0.95 * macs * whole + others + kMacsPerPacked * packed +
         kMacsPerWeight * static_cast<double>(s.weight_elems()) +
         kMacsPerGemmResult * results(pass, s) + kMacsPerImplicitGemm;
}

// ---- winograd and fft

int64_t winograd_elements_of(ConvPass pass, const winograd::PlaneShape& s, int64_t rows,
                             int64_t columns) {
  if (pass == ConvPass::wgrad) return winograd::Blocks(s, rows, columns).workspace_elements(s);
  return winograd::Groups(s, rows, columns).workspace_elements(s);
}
template <int ROWS, int COLUMNS>
int64_t winograd_elements(ConvPass pass, const ConvShape& s) {
  return winograd_elements_of(pass, winograd::PlaneShape(forward_shape(pass, s)), ROWS, COLUMNS);
}
// The products, and transforms of the filters and of every tile.
double winograd_cost_of(ConvPass pass, const winograd::PlaneShape& s, int64_t rows,
                        int64_t columns) {
  const double kMacsPerFilter = pass == ConvPass::wgrad ? 12 : 18;
  // Of a transformed element; 5x5 filters have more of them a pixel, but volumes' lie beyond L2.
  const bool near = s.kernel[1] == 5 && (pass != ConvPass::wgrad || s.depth_taps == 1);
  const double kMacsPerTile = (pass == ConvPass::wgrad ? 40 : 24) / (near ? 2 : 1);
  const winograd::Tiles tiles(s, rows, columns);
  const double elements = static_cast<double>(tiles.elements);
  const double all = whole_vectors(tiles.all);
  // wgrad multiplies panels of up to 48 inputs of a group; narrow ones leave the units idle.
  const double narrow = pass == ConvPass::wgrad && s.c_per_group() <= 16 ? 2 : 1;
  // 36 elements of a panel of inputs, all tiles as one block, beyond L2: read again and again.
  constexpr int64_t kFewOutputs = 96, kWidestPanel = 48, kInL2 = 1 << 18;
  const int64_t panel = tiles.elements * tiles.all * std::min(s.c_per_group(), kWidestPanel);
  const bool far = pass == ConvPass::wgrad && s.kernel[1] == 5 && s.k_per_group() > kFewOutputs &&
                   panel > kInL2 && tiles.all <= winograd::Blocks(s, rows, columns).block;
  return (far ? 2 : 1) * elements *
         (narrow * all * filters(s) + kMacsPerFilter * filters(s) +
          kMacsPerTile * all * static_cast<double>(s.c + s.k));
}

template <int ROWS, int COLUMNS>
double winograd_cost(ConvPass pass, const ConvShape& s) {
  return winograd_cost_of(pass, winograd::PlaneShape(forward_shape(pass, s)), ROWS, COLUMNS);
}

std::string needs_winograd1d(ConvPass pass, const ConvShape& s) {
  if (std::min(s.kernel[1], s.kernel[2]) != 1 || std::max(s.kernel[1], s.kernel[2]) < 3)
    return "needs a filter of one row or column and 3 or more taps, got " +
           std::to_string(s.kernel[1]) + "x" + std::to_string(s.kernel[2]);
  return needs_unit_steps(pass, s);
}
// The shape in parts and its tiles: value(shape, rows, columns).
template <class Value>
auto in_lines(ConvPass pass, const ConvShape& shape, const Value& value) {
  const int64_t part_taps = winograd::best_part_taps(shape), outputs = 7 - part_taps;
  const winograd::PlaneShape s(forward_shape(pass, shape), part_taps);
  return shape.kernel[1] > 1 ? value(s, outputs, 1) : value(s, 1, outputs);
}
int64_t winograd1d_elements(ConvPass pass, const ConvShape& shape) {
  return in_lines(pass, shape, [&](const auto& s, int64_t rows, int64_t columns) {
    return winograd_elements_of(pass, s, rows, columns);
  });
}
double winograd1d_cost(ConvPass pass, const ConvShape& shape) {
  // An element of a tile is used for the filters of one part alone; dilated tiles are gathered.
  const int64_t dilation = shape.kernel[1] > 1 ? shape.dilation[1] : shape.dilation[2];
  const double once = (pass == ConvPass::wgrad ? 1.35 : 1.2) * (dilation > 1 ? 1.6 : 1);
  return once * in_lines(pass, shape, [&](const auto& s, int64_t rows, int64_t columns) {
           return winograd_cost_of(pass, s, rows, columns);
         });
}

std::string needs_winograd_rows(ConvPass pass, const ConvShape& s) {
  if (s.kernel[1] != 3) return "needs a filter of 3 rows, got " + std::to_string(s.kernel[1]);
  if (s.dilation[1] != 1) return "needs dilation 1 along the rows";
  if (pass == ConvPass::wgrad && (s.dilation[2] != 1 || s.kernel[2] > 5))
    return "needs dilation 1 and a filter of at most 5 columns";
  return needs_plane_at_stride_1(s);
}
int64_t winograd_rows_elements(ConvPass pass, const ConvShape& s) {
  return pass == ConvPass::wgrad ? 0 : winograd::row_filter_elements(forward_shape(pass, s));
}
// Half the products of rows rounded up to 4, of positions between the rows too; and transforms.
// 16 elements for 9, 36 for 25 or 6 for 3 or 4 along a line, where the tiles are so few that
// transforming the filters counts.
// Longer tiles have 24 or 36 elements for 9, which come from memory no faster than they are made.
int64_t transformed_filters_of(const winograd::PlaneShape& s, int64_t rows, int64_t columns) {
  constexpr int64_t kMostTiles = 512;
  const winograd::Tiles tiles(s, rows, columns);
  return tiles.all <= kMostTiles ? tiles.filter_elements(s) : 0;
}
PackedForm transformed_filters(ConvPass pass, const ConvShape& s) {
  return {transformed_filters_of(winograd::PlaneShape(forward_shape(pass, s)), 2, 2)};
}
PackedForm transformed_lines(ConvPass pass, const ConvShape& s) {
  return {in_lines(pass, s, [](const auto& shape, int64_t rows, int64_t columns) {
    return transformed_filters_of(shape, rows, columns);
  })};
}

double winograd_rows_cost(ConvPass pass, const ConvShape& s) {
  const double kMacsPerElement = pass != ConvPass::wgrad ? 8 : vector_lanes() >= 16 ? 12 : 24;
  constexpr double kMacsPerFilter = 30, kMacsPerCall = 1e5;
  const ConvShape shape = forward_shape(pass, s);
  const double blocks = std::ceil(static_cast<double>(shape.out[1]) / 4);
  const double pitch =
      static_cast<double>(shape.out[2] + (shape.kernel[2] - 1) * shape.dilation[2]);
  const double elements = 6 * static_cast<double>(s.n) * blocks * pitch;
  const int64_t lanes = shape.k_per_group();
  const bool wgrad = pass == ConvPass::wgrad;  // over vectors of outputs
  const double padded = wgrad ? whole_vectors(lanes) : static_cast<double>(lanes + lanes % 4);
  // Of wide groups the products cost most, and tiles along both axes have fewer.
  const bool narrow = std::min(s.c_per_group(), s.k_per_group()) < 32;
  const double wide = narrow ? 1 : !wgrad ? 1.3 : s.groups == 1 ? 1.6 : 1.15;
  return kMacsPerCall + far_results(pass, s) +
         wide * elements * filters(s) * static_cast<double>(shape.kernel[2]) * padded /
             static_cast<double>(std::max<int64_t>(lanes, 1)) +
         kMacsPerElement * elements * static_cast<double>(s.c + s.k) +
         kMacsPerFilter * static_cast<double>(s.weight_elems());
}

// The filters' spectra are not kept: no layer of the suite has fft among its two cheapest
// algorithms.
int64_t fft_elements(ConvPass pass, const ConvShape& s) {
  const ConvShape shape = forward_shape(pass, s);
  return FftTiles(shape).workspace_elements(shape);
}
// Four real products a complex one, and transforms of a vector of tiles or input channels at a
// time.
double fft_cost(ConvPass pass, const ConvShape& s) {
  const double kMacsPerTransform = pass == ConvPass::wgrad ? 420 : 300;
  const ConvShape shape = forward_shape(pass, s);
  const FftTiles tiles(shape);
  const double frequencies = static_cast<double>(tiles.frequencies());
  const double transformed =
      frequencies * (static_cast<double>(shape.k) * whole_vectors(shape.c_per_group()) +
                     whole_vectors(tiles.all(shape)) * static_cast<double>(s.c + s.k));
  return 1.7 * 4 * frequencies * static_cast<double>(tiles.all(shape)) * filters(s) +
         kMacsPerTransform * transformed;
}

constexpr ConvRule packing(ConvRule rule, PackedForm (*packed)(ConvPass, const ConvShape&)) {
  rule.packed = packed;
  return rule;
}

constexpr ConvRule kCpuRules[] = {
    {"direct", never, no_workspace, direct_cost},
    {"depthwise", needs_depthwise, no_workspace, depthwise_cost},
    {"im2col", never, im2col_elements, im2col_cost},
    packing({"implicit_gemm", never, implicit_gemm_elements, implicit_gemm_cost}, packed_panels),
    packing({"winograd", needs_winograd3x3, winograd_elements<2, 2>, winograd_cost<2, 2>},
            transformed_filters),
    {"winograd2x4", needs_winograd3x3, winograd_elements<2, 4>, winograd_cost<2, 4>},
    {"winograd4x1", needs_winograd_rows, winograd_rows_elements, winograd_rows_cost},
    {"winograd4", needs_winograd3x3, winograd_elements<4, 4>, winograd_cost<4, 4>, false,
     "rounds about four times as much as direct: ask for it by name"},
    packing({"winograd5x5", needs_winograd5x5, winograd_elements<2, 2>, winograd_cost<2, 2>},
            transformed_filters),
    packing({"winograd1d", needs_winograd1d, winograd1d_elements, winograd1d_cost},
            transformed_lines),
    {"fft", needs_fft, fft_elements, fft_cost},
};

}  // namespace

const ConvRule* cpu_conv_rule(const std::string& algo) {
  for (const ConvRule& rule : kCpuRules)
    if (algo == rule.algo) return &rule;
  return nullptr;
}

}  // namespace lamina::ops
