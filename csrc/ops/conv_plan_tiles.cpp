// The rules of the CPU's Winograd and Fourier convolutions.
#include <algorithm>
#include <cmath>

#include "ops/conv_costs.h"
#include "shared/direct_blocks.h"
#include "shared/fft_tiles.h"
#include "shared/winograd_blocks.h"
#include "shared/winograd_rows.h"

namespace lamina::ops {

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
  const bool few = std::min(s.c_per_group(), s.k_per_group()) <= 8;
  const bool near = s.kernel[1] == 5 && !few && (pass != ConvPass::wgrad || s.depth_taps == 1);
  const double kMacsPerTile = (pass == ConvPass::wgrad ? 40 : 24) / (near ? 2 : 1);
  const winograd::Tiles tiles(s, rows, columns);
  // Dilated tiles are gathered: lines of a row of tiles of a phase, be it ever so short, and more
  // elements of the inputs than are stored.
  constexpr double kMacsPerLine = 370;
  const double inputs = static_cast<double>(s.c), outputs = static_cast<double>(s.k);
  const bool one_axis = std::min(s.kernel[1], s.kernel[2]) == 1;
  double moved = inputs + outputs, lines = 0;
  if (one_axis && std::max(s.dilation[1], s.dilation[2]) > 1) {
    moved *= 3;
  } else if (s.dilation[2] > 1) {
    moved += inputs;
    lines = static_cast<double>(tiles.all / std::max<int64_t>(tiles.tiles_w, 1)) *
            static_cast<double>(2 * rows + s.kernel[1] - 1);
  }
  const double elements = static_cast<double>(tiles.elements);
  const double all = whole_vectors(tiles.all);
  // Rows of tiles are short in the planes of a volume.
  const double kMacsPerRun =
      s.depth_in > 1 ? 100 * static_cast<double>(std::max<int64_t>(16 - tiles.tiles_w, 0)) : 0;
  const double runs = static_cast<double>(s.n * tiles.phases_h * tiles.tiles_h * tiles.phases_w);
  // wgrad multiplies panels of up to 48 inputs of a group; narrow ones leave the units idle.
  const double narrow = pass == ConvPass::wgrad && s.c_per_group() <= 16 ? 2 : 1;
  // 36 elements of a panel of inputs, all tiles as one block, beyond L2: read again and again.
  constexpr int64_t kFewOutputs = 96, kWidestPanel = 48, kInL2 = 1 << 18;
  const int64_t panel = tiles.elements * tiles.all * std::min(s.c_per_group(), kWidestPanel);
  const bool far = pass == ConvPass::wgrad && s.kernel[1] == 5 && s.k_per_group() > kFewOutputs &&
                   panel > kInL2 && tiles.all <= winograd::Blocks(s, rows, columns).block;
  // Blocks of few outputs read the transformed inputs of all tiles again, from beyond L2.
  constexpr double kMacsPerRead = 20, kNear = 1 << 17, kFewOutputPanels = 4;
  const winograd::Groups groups(s, rows, columns);
  const double transformed = elements * all * inputs;
  const int64_t panels = s.groups * ((s.k_per_group() + 7) / 8);
  const bool again = pass != ConvPass::wgrad && s.parts > 1 && groups.by_filter &&
                     transformed > kNear && static_cast<double>(panels) <= kFewOutputPanels;
  const double read = again ? kMacsPerRead * static_cast<double>(panels) * transformed : 0;
  return read +
         (far ? 2 : 1) * elements *
             (narrow * all * filters(s) + kMacsPerFilter * filters(s) +
              kMacsPerTile * all * moved) +
         (kMacsPerLine * lines + kMacsPerRun * runs) * (inputs + outputs);
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
  const double once = pass == ConvPass::wgrad ? 1.35 : 1.2;
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
  const bool many = s.c_per_group() + s.k_per_group() > 192;  // a block's elements leave L1
  const double kMacsPerElement = pass == ConvPass::wgrad ? (vector_lanes() >= 16 ? 12 : 24)
                                 : many                  ? 20
                                                         : 8;
  constexpr double kMacsPerFilter = 30, kMacsPerCall = 1e5;
  const ConvShape shape = forward_shape(pass, s);
  const double blocks = std::ceil(static_cast<double>(shape.out[1]) / 4);
  const double pitch =
      static_cast<double>(shape.out[2] + (shape.kernel[2] - 1) * shape.dilation[2]);
  const double elements = 6 * static_cast<double>(s.n) * blocks * pitch;
  const int64_t lanes = shape.k_per_group();
  const bool wgrad = pass == ConvPass::wgrad;  // over vectors of outputs
  // A task that few positions of many channels fill reads all filters for them.
  constexpr double kTaskElements = 32768 / 6, kTile = 48;
  const double channels = static_cast<double>(s.c_per_group() + s.k_per_group());
  const double fit =
      std::max(std::floor(kTaskElements / std::max(channels, 1.0) / std::max(pitch, 1.0)), 1.0);
  const double whole = fit < blocks ? fit : std::floor(fit / blocks) * blocks;
  const double positions =
      std::max(std::min(whole, static_cast<double>(s.n) * blocks) * pitch, 1.0);
  const double short_tiles = wgrad ? 0 : 0.17 * std::pow(kTile / positions, 2);
  const double padded = wgrad ? whole_vectors(lanes) : static_cast<double>(lanes + lanes % 4);
  // Of wide groups the products cost most, and tiles along both axes have fewer.
  const bool narrow = std::min(s.c_per_group(), s.k_per_group()) < 32;
  const double line = s.kernel[2] == 1 ? 2 : 1;  // few products for what is transformed
  const double wide = narrow ? 1 : !wgrad ? 1.3 : s.groups == 1 ? 1.6 : 1.15;
  // A task of wgrad is a block of outputs and inputs: two threads share an even number of them.
  constexpr int64_t kLeastBlock = 4;
  int64_t tasks = s.groups * ((lanes + vector_lanes() - 1) / vector_lanes()) *
                  ((s.c_per_group() + kInputBlock - 1) / kInputBlock);
  if (tasks == 1 && s.c_per_group() > kLeastBlock) tasks = 2;  // blocks of fewer inputs
  const double idle = wgrad ? static_cast<double>(tasks + tasks % 2) /
                                  static_cast<double>(std::max<int64_t>(tasks, 1))
                            : 1;
  return kMacsPerCall + far_results(pass, s) +
         idle * (wide + short_tiles) * line * elements * filters(s) *
             static_cast<double>(shape.kernel[2]) * padded /
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

constexpr ConvRule kTiledRules[] = {
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

const ConvRule* tiled_conv_rule(const std::string& algo) {
  for (const ConvRule& rule : kTiledRules)
    if (algo == rule.algo) return &rule;
  return nullptr;
}

}  // namespace lamina::ops
