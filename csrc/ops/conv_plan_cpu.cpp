// The rules of the CPU's convolutions: what each algorithm can run, its workspace and its cost.
// Those of tiles are in conv_plan_tiles.cpp, those in bfloat16 in conv_plan_bf16.cpp.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/conv_costs.h"
#include "shared/conv_parts.h"
#include "shared/conv_phase.h"
#include "shared/direct_blocks.h"
#include "shared/direct_inputs.h"
#include "shared/implicit_gemm.h"

namespace lamina::ops {

ConvShape forward_shape(ConvPass pass, const ConvShape& s) {
  return pass == ConvPass::dgrad ? conv_phase(s, 0).shape : s;
}

namespace {

constexpr double kMacsPerMove = 8;  // of a float through the caches

// Of an output element that leaves the registers: what few products do not hide.
constexpr double kMacsPerGemmResult = 33;
// What a call of an unrolling algorithm costs before its first product, in the smallest shapes.
constexpr double kMacsPerIm2col = 40e3, kMacsPerImplicitGemm = 25e3;

std::string never(ConvPass, const ConvShape&) {
  return {};
}
int64_t no_workspace(ConvPass, const ConvShape&) {
  return 0;
}
// Multiply-adds of a pass as a convolution of stride 1 computes it, if that is its stride: with all
// taps of all results, where grad_y is smaller than grad_x.
double computed_macs(ConvPass pass, const ConvShape& s) {
  if (pass != ConvPass::dgrad || conv_phases(s) > 1) return static_cast<double>(s.macs());
  return static_cast<double>(forward_shape(pass, s).macs());
}

// ---- direct and depthwise

// Few terms of rows that fill a vector: the sums leave from the registers, row by row.
bool leaves_at_once(ConvPass pass, const ConvShape& s) {
  constexpr int64_t kRunTerms = 256;
  return pass == ConvPass::fprop && s.out[2] >= vector_lanes() &&
         s.c_per_group() * s.kernel_size() <= kRunTerms;
}
// Outputs that meet the same taps of an axis, and phases of a gradient that any tap meets.
int64_t tap_steps(const ConvShape& s, int axis) {
  return s.stride[axis] / greatest_divisor(s.stride[axis], s.dilation[axis]);
}
int64_t met_phases(const ConvShape& s) {
  int64_t count = 1;
  for (int axis = 0; axis < 3; ++axis) count *= std::min(s.kernel[axis], tap_steps(s, axis));
  return count;
}
double direct_stored(ConvPass pass, const ConvShape& s) {
  const double kMacsPerResult = !leaves_at_once(pass, s)         ? 25
                                : s.out[2] % vector_lanes() == 0 ? 8
                                                                 : 12;
  // Phases of a volume write every other element of many rows.
  const bool scattered = pass == ConvPass::dgrad && s.in[0] > 1 && s.stride[2] > 1;
  const double met = static_cast<double>(met_phases(s)) / static_cast<double>(conv_phases(s));
  return (scattered ? 2 * met : 1) * kMacsPerResult * results(pass, s);
}
// Planes of a volume that lie in the padding are left out; the factors below hold where few do.
double met_share(const ConvShape& s) {
  constexpr double kUsual = 0.95;
  return std::min(inside_share(s, 0) / kUsual, 1.0);
}
// Elements of the padded copies of planes: every band of output rows copies all that its taps span.
double direct_copies(const ConvShape& s) {
  int64_t span[3] = {}, remainders[3] = {};
  for (int axis = 1; axis < 3; ++axis) {
    span[axis] = std::max<int64_t>(s.kernel[axis] - 1, 0) * s.dilation[axis] / s.stride[axis];
    remainders[axis] = std::min(s.kernel[axis], tap_steps(s, axis));
  }
  const int64_t out = std::max<int64_t>(s.out[1], 1);
  const int64_t line = remainders[1] * remainders[2] * (s.out[2] + span[2]);
  const int64_t fit = kBandElements / std::max<int64_t>(s.c_per_group() * line, 1) - span[1];
  const int64_t rows = std::clamp<int64_t>(fit, 1, out);
  return static_cast<double>(s.n * s.c * line * ((out + rows - 1) / rows * (rows + span[1])));
}
// Rows that are copied, and those of results that leave through a tile: in the planes of a volume
// they are short.
double direct_short_rows(ConvPass pass, const ConvShape& s) {
  constexpr double kMacsPerRow = 300, kMacsPerSplitRow = 600, kLong = 32;
  const bool wide = leaves_at_once(pass, s), dgrad = pass == ConvPass::dgrad;
  const ConvShape shape = dgrad ? conv_phase(s, 0).shape : s;
  const double share = 1 - static_cast<double>(shape.out[2]) / kLong;
  if (s.in[0] == 1 || share <= 0) return 0;
  int64_t lines = 1;
  for (int axis = 1; axis < 3; ++axis) lines *= std::min(s.kernel[axis], tap_steps(s, axis));
  const double planes = static_cast<double>((dgrad ? s.in[0] : s.out[0]) * s.kernel[0]);
  const double copied = inside_share(s, 0) * planes * static_cast<double>(shape.c * lines);
  const double stored = static_cast<double>(shape.k * (dgrad ? s.in[0] * s.stride[2] : s.out[0]));
  return share * static_cast<double>(s.n * shape.out[1]) *
         ((shape.stride[2] > 1 ? kMacsPerSplitRow : kMacsPerRow) * copied +
          (wide ? 0 : kMacsPerRow * (dgrad ? static_cast<double>(s.stride[1]) : 1) * stored));
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
  const double macs = few ? computed_macs(pass, s) * met_share(forward_shape(pass, s))
                          : static_cast<double>(s.macs()) * met_share(s);
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
  if (pass == ConvPass::fprop && prefers_inputs(s, vector_lanes()))
    return direct_inputs_cost(s, vector_lanes());
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
  double copied = direct_copies(shape) * static_cast<double>(shape.out[0]);  // by every phase
  const bool line = s.in[0] == 1 && s.in[1] == 1;
  const int64_t phases = line ? conv_phases(s) : met_phases(s);
  if (pass == ConvPass::dgrad) copied *= static_cast<double>(phases);
  if (s.kernel[0] > 1) {
    const double met = static_cast<double>(s.kernel[0] * s.out[0] / std::max<int64_t>(s.in[0], 1));
    copied = pass == ConvPass::dgrad ? 1.5 * static_cast<double>(s.kernel[0] * s.y_elems())
                                     : 2.5 * std::max(met, 1.0) * static_cast<double>(s.x_elems());
  }
  return macs * static_cast<double>(lanes + (lanes % 8 + 1) / 2) / static_cast<double>(lanes) *
             computed / plane * (far ? (pass == ConvPass::dgrad ? 3 : 1.15) : 1) *
             ((s.kernel[0] > 1 ? shape : s).kernel_size() == 1 ? (s.out_size() < 64 ? 2 : 1.4)
                                                               : per_product * crowded) *
             (phases > 1 && pass == ConvPass::dgrad ? 1.5 : 1) * idle +
         direct_stored(pass, s) + direct_short_rows(pass, s) + kMacsPerCopied * copied;
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
// multiplied in whole vectors, and so are rows of the matrix for wgrad, whose result every image
// adds to.
double im2col_cost(ConvPass pass, const ConvShape& s) {
  const bool wgrad = pass == ConvPass::wgrad;
  const double images = static_cast<double>(s.n), products = images * static_cast<double>(s.groups);
  const double written = products * static_cast<double>(s.c_per_group() * s.kernel_size()) *
                         static_cast<double>(s.out[0] * s.out[1]) * whole_vectors(s.out[2]);
  const int64_t lines =
      std::max<int64_t>(wgrad ? s.c_per_group() * s.kernel_size() : s.out_size(), 1);
  const double whole = whole_vectors(lines) / static_cast<double>(lines);
  constexpr double kMacsPerProduct = 150e3, kMacsPerSplitRow = 600;
  const bool split = pass == ConvPass::fprop && s.in[0] > 1 &&
                     s.stride[2] > 1;  // short rows of every other element
  const double rows = split ? products * static_cast<double>(im2col_elements(pass, s)) /
                                  static_cast<double>(std::max<int64_t>(s.out[2], 1))
                            : 0;
  return (wgrad ? 1.4 : 1.2) * whole * static_cast<double>(s.macs()) +
         kMacsPerMove * (pass == ConvPass::dgrad ? 12 : 4) * written + kMacsPerSplitRow * rows +
         kMacsPerProduct * products +
         (wgrad ? 60 * images : 20) * static_cast<double>(s.weight_elems()) +
         (wgrad ? 0 : kMacsPerGemmResult * results(pass, s)) + kMacsPerIm2col;
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
  constexpr double kMacsPerTransposed = 12, kMacsPerWeight = 75, kMacsPerRun = 110;
  const auto whole = [](int64_t count, int64_t unit) {
    return static_cast<double>((count + unit - 1) / unit * unit);
  };
  const int64_t rows = s.c_per_group() * s.kernel_size();
  const double positions = static_cast<double>(s.n * s.out_size());
  const double lanes = static_cast<double>(s.groups) * whole(s.k_per_group(), kVector);
  const double spaced =
      s.stride[2] >= 8 ? 40 * std::ceil(static_cast<double>(s.k_per_group()) / 192) : 0;
  const double runs = static_cast<double>(s.groups * rows * s.n * s.out[0] * s.out[1]);
  return spaced * static_cast<double>(s.groups * rows) * positions + kMacsPerRun * runs +
         1.1 * inside_share(s, 1) * inside_share(s, 2) * lanes * whole(rows, kRows) * positions +
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
// Of the input as it is unrolled for every block of filters: whole vectors of neighbours in a row
// of results, those of up to 16 channels of a tap together.
double unrolled_cost(const ConvShape& s, double per_element, int64_t filters) {
  constexpr int64_t kTogether = 16, kBlock = 512;
  constexpr double kMacsPerRun = 1000;
  const double rows = static_cast<double>(s.n * s.groups * s.out[0] * s.out[1]);
  const double taps = static_cast<double>(s.kernel_size());
  const double blocks = static_cast<double>((filters + kBlock - 1) / kBlock);
  const double runs =
      rows * taps * static_cast<double>((s.c_per_group() + kTogether - 1) / kTogether);
  return blocks * (per_element * rows * whole_vectors(s.out[2]) * taps *
                       static_cast<double>(s.c_per_group()) +
                   kMacsPerRun * runs);
}
// Products of whole panels of 8 filters; each panel of the unrolled input is packed once for up to
// 512 of them, and so are the filters.
double implicit_gemm_cost(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return implicit_gemm_wgrad_cost(s) + kMacsPerImplicitGemm;
  if (pass == ConvPass::dgrad && in_columns(s))
    return implicit_gemm_columns_cost(s) + kMacsPerImplicitGemm;
  constexpr int64_t kPanel = 8;
  constexpr double kMacsPerWeight = 17, kMacsPerWeightInParts = 34, kMacsPerRow = 250;
  // Every third, fourth or fifth element of rows is shuffled out of vectors.
  const bool shuffled = s.stride[2] >= 3 && s.stride[2] <= 5 && s.kernel[0] == 1;
  const double kMacsPerSpaced = s.stride[2] >= 8 ? 50 : s.kernel[0] > 1 ? 34 : shuffled ? 16 : 22;
  const double kMacsPerPacked = pass == ConvPass::fprop && s.stride[2] > 1 ? kMacsPerSpaced : 14;
  const int64_t filters = pass == ConvPass::dgrad ? s.c_per_group() : s.k_per_group();
  const double whole =
      static_cast<double>((filters + kPanel - 1) / kPanel * kPanel) / static_cast<double>(filters);
  double macs = computed_macs(pass, s), others = 0;
  if (in_parts(pass, s)) {  // in whole vectors
    macs = 0;
    for_each_part(pass, s, [&](const ConvPart& part) {
      const ConvShape& of = part.shape;
      macs += whole_vectors(of.n * of.out_size()) *
              static_cast<double>(of.kernel_size() * s.k * s.c_per_group());
      others += unrolled_cost(of, kMacsPerPacked, filters) +
                kMacsPerRow * static_cast<double>(of.n * of.out[0] * of.out[1] * of.k);
    });
    others += (kMacsPerWeightInParts - kMacsPerWeight) * static_cast<double>(s.weight_elems());
  } else {
    others = unrolled_cost(forward_shape(pass, s), kMacsPerPacked, filters);
  }
  return 0.95 * macs * whole + others + kMacsPerWeight * static_cast<double>(s.weight_elems()) +
         kMacsPerGemmResult * results(pass, s) + kMacsPerImplicitGemm;
}

// ---- gather GEMM

std::string needs_pairs(ConvPass, const ConvShape& s) {
  const int64_t positions = s.n * std::max(s.in_size(), s.out_size());
  if (positions <= std::numeric_limits<int32_t>::max()) return {};
  return "needs fewer than 2^31 positions, got " + std::to_string(positions);
}
// Where few positions share the filters.
PackedForm filter_vectors(ConvPass pass, const ConvShape& s) {
  constexpr int64_t kMostPositions = 1024;
  const bool dgrad = pass == ConvPass::dgrad;
  if (pass == ConvPass::wgrad || s.n * (dgrad ? s.in_size() : s.out_size()) > kMostPositions)
    return {};
  const int64_t results = dgrad ? s.c_per_group() : s.k_per_group();
  const int64_t vectors = (results + vector_lanes() - 1) / vector_lanes();
  return {s.weight_elems() / std::max<int64_t>(results, 1) * vectors * vector_lanes(), 0};
}
// Products of the pairs that taps join, in vectors of results, those of one and two a tile waiting
// for their loads; sums that move for the taps of a row that a result meets; and both operands and
// the results, laid out anew: fitted where other work has emptied the caches since the last call.
double gather_gemm_cost(ConvPass pass, const ConvShape& s) {
  constexpr int64_t kRows = 8, kRowBlock = 16;
  constexpr double kFar = 1 << 20, kMacsPerCall = 150e3;
  const int64_t lanes = vector_lanes();
  const auto whole = [](int64_t count, int64_t unit) {
    return static_cast<double>((count + unit - 1) / unit * unit);
  };
  const auto moved = [](double elements, double near, double far, double caches) {
    return near * elements + far * std::max(elements - caches, 0.0);
  };
  double pairs = static_cast<double>(s.n * s.groups), taps = static_cast<double>(s.groups);
  for (int axis = 0; axis < 3; ++axis) {
    const MetInputs met = met_inputs(s, axis);
    pairs *= static_cast<double>(met.pairs), taps *= static_cast<double>(met.taps);
  }
  const bool wgrad = pass == ConvPass::wgrad;
  int64_t from = s.c_per_group(), to = s.k_per_group();
  double from_size = static_cast<double>(s.n * s.groups * s.in_size());
  double to_size = static_cast<double>(s.n * s.groups * s.out_size());
  if (pass == ConvPass::dgrad ||
      (wgrad && whole(from, kRows) * whole(to, lanes) > whole(to, kRows) * whole(from, lanes)))
    std::swap(from, to), std::swap(from_size, to_size);
  const int64_t vectors = (to + lanes - 1) / lanes;
  const double waiting = vectors == 1 ? 1.3 : vectors == 2 || vectors == 4 ? 1.1 : 1;
  const double alone = s.kernel_size() == 1 ? 1.15 : 1;  // one tap for all that is laid out
  const double width = whole(to, lanes), weights = static_cast<double>(s.groups * s.kernel_size());
  if (wgrad) {
    constexpr double kMacsPerPair = 8;
    return alone * (0.94 * waiting * pairs * whole(from, kRows) * width +
                    kMacsPerPair * pairs / static_cast<double>(std::max<int64_t>(s.n, 1)) +
                    9 * from_size * whole(from, kRowBlock) + moved(to_size * width, 14, 55, kFar) +
                    moved(weights * whole(from, kRowBlock) * width, 18, 11, kFar)) +
           kMacsPerCall;
  }
  // Every run of positions reads the filters of a tap from L2.
  constexpr double kMacsPerPair = 14, kMovedSums = 6, kRowsPerTap = 6, kRun = 256, kChannels = 128;
  constexpr double kMacsPerWeight = 40, kInL2 = 1 << 18;
  const int64_t columns = std::max<int64_t>(pass == ConvPass::dgrad ? s.in[2] : s.out[2], 1);
  const double joined =
      std::max(static_cast<double>(met_inputs(s, 2).pairs) / static_cast<double>(columns), 1.0);
  const double rows =
      pairs + kRowsPerTap * taps * std::max(to_size / static_cast<double>(s.groups) / kRun, 1.0);
  return alone *
             (width *
                  (1.03 * waiting * rows * static_cast<double>(from) +
                   kMovedSums * pairs / joined * std::ceil(static_cast<double>(from) / kChannels)) +
              kMacsPerPair * pairs / joined + moved(from_size * whole(from, lanes), 28, 30, kFar) +
              moved(to_size * width, 40, 14, kFar) +
              moved(weights * static_cast<double>(from) * width, kMacsPerWeight, kMacsPerWeight,
                    kInL2)) +
         kMacsPerCall;
}

constexpr ConvRule kCpuRules[] = {
    {"direct", never, no_workspace, direct_cost},
    {"depthwise", needs_depthwise, no_workspace, depthwise_cost},
    {"im2col", never, im2col_elements, im2col_cost},
    packing({"gather_gemm", needs_pairs, no_workspace, gather_gemm_cost}, filter_vectors),
    packing({"implicit_gemm", never, implicit_gemm_elements, implicit_gemm_cost}, packed_panels),
};

}  // namespace

const ConvRule* cpu_conv_rule(const std::string& algo) {
  for (const ConvRule& rule : kCpuRules)
    if (algo == rule.algo) return &rule;
  return tiled_conv_rule(algo);
}

}  // namespace lamina::ops
