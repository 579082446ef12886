// The rules of the CUDA convolutions: what each algorithm can run, its workspace and its cost.
#include "ops/conv_plan.h"
#include "shared/conv_phase.h"
#include "shared/conv_split.h"
#include "shared/depthwise_tile.h"
#include "shared/fft_blocks.h"
#include "shared/im2col_chunk.h"
#include "shared/winograd_tiles.h"

namespace lamina::ops {
namespace {

// Costs count multiply-adds at the rate of the implicit GEMM's inner loop.
constexpr double kMacsPerElement = 28;  // of a float32 that moves between the GPU and its memory
constexpr int kTf32Rate = 4;            // of tensor cores through mma.sync, gathers included

std::string never(ConvPass, const ConvShape&) {
  return {};
}
double moved(const ConvShape& s) {
  return kMacsPerElement * static_cast<double>(s.x_elems() + s.y_elems());
}

// ---- direct

int64_t direct_elements(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return conv_wgrad_split(s).workspace_elements(s.weight_elems());
  if (pass == ConvPass::bgrad) return conv_bgrad_split(s).workspace_elements(s.k);
  return 0;
}
// Blocks of 16 output channels, of 4 at half the speed; the weight gradient loads more than it
// adds.
double direct_cost(ConvPass pass, const ConvShape& s) {
  const int64_t outputs = pass == ConvPass::dgrad ? s.c_per_group() : s.k_per_group();
  const int64_t block = outputs > 4 ? 16 : 4;
  const double filled =
      static_cast<double>((outputs + block - 1) / block * block) / static_cast<double>(outputs);
  const double slower = (outputs > 4 ? 1.2 : 2.2) * (pass == ConvPass::wgrad ? 2.2 : 1);
  const double macs = slower * filled * static_cast<double>(s.macs());
  return macs > moved(s) ? macs : moved(s);
}

// ---- depthwise

std::string needs_depthwise(ConvPass pass, const ConvShape& s) {
  if (s.c_per_group() != 1)
    return "needs one input channel a group, got " + std::to_string(s.c_per_group());
  constexpr int64_t kFar = int64_t{1} << 30;
  const bool gradient = pass == ConvPass::dgrad;
  for (int axis = 0; axis < 3; ++axis)
    if (s.in[axis] + s.pad[axis] > kFar || s.out[axis] * s.stride[axis] > kFar ||
        s.kernel[axis] * s.dilation[axis] > kFar)
      return "needs extents below 2^30";
  for (int axis = 1; axis < 3; ++axis)
    if (gradient && s.stride[axis] > DepthwiseTile::kLargestStride)
      return "needs strides up to " + std::to_string(DepthwiseTile::kLargestStride) + ", got " +
             std::to_string(s.stride[axis]);
  const bool fits =
      pass == ConvPass::wgrad ? DepthwiseSplit(s).fits() : DepthwiseTile(s, gradient).fits();
  return fits ? "" : "needs a filter whose reach fits shared memory";
}
int64_t depthwise_elements(ConvPass pass, const ConvShape& s) {
  if (pass != ConvPass::wgrad) return 0;
  return DepthwiseSplit(s).split.workspace_elements(s.weight_elems());
}
double depthwise_cost(ConvPass pass, const ConvShape& s) {
  const double macs = (pass == ConvPass::wgrad ? 3 : 2) * static_cast<double>(s.macs());
  return macs > moved(s) ? macs : moved(s);
}

// ---- im2col

int64_t im2col_elements(ConvPass pass, const ConvShape& s) {
  return Im2colChunk(s).workspace_elements(pass);
}
// Tiles of 64 x 64 that the sizes of a group do not fill.
double filled_tiles(int64_t m, int64_t n) {
  const auto padded = [](int64_t size) { return static_cast<double>((size + 63) / 64 * 64); };
  return padded(m) * padded(n);
}
// The matrix is written once and read once; wgrad runs one product an image.
template <int RATE>
double im2col_cost(ConvPass pass, const ConvShape& s) {
  const int64_t k = s.k_per_group(), unrolled = s.c_per_group() * s.kernel_size();
  const double matrices = static_cast<double>(s.n * s.groups);
  const double macs =
      pass == ConvPass::fprop   ? filled_tiles(k, s.out_size()) * static_cast<double>(unrolled)
      : pass == ConvPass::dgrad ? filled_tiles(unrolled, s.out_size()) * static_cast<double>(k)
                                : 4 * filled_tiles(k, unrolled) * static_cast<double>(s.out_size());
  const double columns = static_cast<double>(s.n * Im2colChunk(s).col_elems);
  return matrices * macs / RATE + 2 * kMacsPerElement * columns + moved(s);
}

// ---- implicit GEMM

// Coordinates, and offsets within the planes and the filters of a group, are 32-bit.
std::string needs_small_images(ConvPass pass, const ConvShape& s) {
  constexpr double kMost = 0x1p30;
  const bool gradient = pass == ConvPass::dgrad;
  const int64_t* const planes = gradient ? s.out : s.in;
  double reach[3];
  for (int axis = 0; axis < 3; ++axis) {
    reach[axis] = static_cast<double>(s.in[axis]) + static_cast<double>(s.pad[axis]) +
                  static_cast<double>(s.out[axis]) * static_cast<double>(s.stride[axis]) +
                  static_cast<double>(s.kernel[axis]) * static_cast<double>(s.dilation[axis]);
    if (reach[axis] > 0x1p28) return "needs extents below 2^28";
  }
  const double plane = static_cast<double>(planes[1]) * static_cast<double>(planes[2]);
  const double channels = static_cast<double>(gradient ? s.k_per_group() : s.c_per_group());
  const double offsets = channels * static_cast<double>(planes[0]) * plane + reach[0] * plane +
                         reach[1] * static_cast<double>(planes[2]) + reach[2];
  if (offsets > kMost ||
      static_cast<double>(s.weight_elems()) > kMost * static_cast<double>(s.groups))
    return "needs fewer than 2^30 elements in an image and a filter of a group";
  if (pass == ConvPass::wgrad && s.out_size() > 0) {
    const auto images = static_cast<double>(implicit_wgrad_split(s).part_size / s.out_size() + 2);
    const double largest = static_cast<double>(
        s.c * s.in_size() > s.k * s.out_size() ? s.c * s.in_size() : s.k * s.out_size());
    if (images * (largest + offsets) > kMost)
      return "needs fewer than 2^30 elements in the images of a partial sum";
  }
  return {};
}
int64_t implicit_gemm_elements(ConvPass pass, const ConvShape& s) {
  if (pass == ConvPass::wgrad) return implicit_wgrad_split(s).workspace_elements(s.weight_elems());
  return pass == ConvPass::dgrad ? phase_filter_elements(s) : 0;
}
// Whole tiles. The weight gradient gathers both operands.
template <int RATE>
double implicit_gemm_cost(ConvPass pass, const ConvShape& s) {
  const int64_t k = s.k_per_group(), unrolled = s.c_per_group() * s.kernel_size();
  const double groups = static_cast<double>(s.groups);
  double macs = 0;
  if (pass == ConvPass::wgrad) {
    macs = 1.3 * filled_tiles(k, unrolled) * static_cast<double>(s.n * s.out_size());
  } else if (pass == ConvPass::fprop) {
    macs = filled_tiles(k, s.n * s.out_size()) * static_cast<double>(unrolled);
  } else {  // each phase has its share of the taps
    const int64_t phases = conv_phases(s);
    macs = filled_tiles(s.c_per_group(), (s.n * s.in_size() + phases - 1) / phases) *
           static_cast<double>(k * s.kernel_size());
  }
  return groups * macs / RATE > moved(s) ? groups * macs / RATE : moved(s);
}

// ---- winograd and fft

template <std::string (*NEEDS)(ConvPass, const ConvShape&)>
std::string needs_small_planes(ConvPass pass, const ConvShape& s) {
  if (std::string reason = NEEDS(pass, s); !reason.empty()) return reason;
  constexpr int64_t kLargest = int64_t{1} << 30;  // positions within a plane are 32-bit
  if (s.in_size() > kLargest || s.out_size() > kLargest)
    return "needs planes of up to 2^30 elements";
  return {};
}
std::string needs_dense_winograd(ConvPass pass, const ConvShape& s) {
  if (s.dilation[1] != 1 || s.dilation[2] != 1) return "needs dilation 1";
  return needs_small_planes<needs_winograd>(pass, s);
}
template <int OUT>
int64_t winograd_elements(ConvPass pass, const ConvShape& s) {
  const winograd::Tiles tiles(forward_shape(pass, s), OUT);
  if (pass == ConvPass::wgrad) return tiles.gradient_workspace();
  return OUT == 2 ? tiles.filter_elements : tiles.staged_workspace();  // F(2x2, 3x3) is fused
}
// Products in tiles of at least 32 channels; the transforms write and read every element once,
// mostly in L2. The fused kernel transforms the input beside the products.
template <int OUT>
double winograd_cost(ConvPass pass, const ConvShape& s) {
  constexpr double kMacsPerTransform = 1.5 * kMacsPerElement;
  const ConvShape shape = forward_shape(pass, s);
  const winograd::Tiles tiles(shape, OUT);
  const int64_t outputs = winograd::round_up(shape.k_per_group(), 32);
  const int64_t inputs =
      pass == ConvPass::wgrad ? winograd::round_up(s.c_per_group(), 32) : shape.c_per_group();
  const double macs = static_cast<double>(tiles.elements * tiles.all) *
                      static_cast<double>(s.groups * outputs * inputs);
  if (OUT == 2 && pass != ConvPass::wgrad)
    return 1.3 * macs + kMacsPerTransform * static_cast<double>(tiles.filter_elements) + moved(s);
  const double transformed =
      static_cast<double>(tiles.elements * (s.k * s.c_per_group() + tiles.all * (s.c + s.k)));
  return macs + kMacsPerTransform * transformed;
}

int64_t fft_elements(ConvPass pass, const ConvShape& s) {
  const FftBlocks blocks(forward_shape(pass, s));
  return pass == ConvPass::wgrad ? blocks.gradient_workspace(s.groups)
                                 : blocks.convolve_workspace(s.groups);
}
// Four real products a complex one, in tiles of at least 32 channels and of 64 at most; the
// transforms pass each element through shared memory several times.
double fft_cost(ConvPass pass, const ConvShape& s) {
  constexpr double kMacsPerTransform = 8 * kMacsPerElement;
  const ConvShape shape = forward_shape(pass, s);
  const FftBlocks blocks(shape);
  const int64_t outputs = winograd::round_up(shape.k_per_group(), 32);
  const int64_t inputs =
      pass == ConvPass::wgrad ? winograd::round_up(s.c_per_group(), 32) : shape.c_per_group();
  const double macs = 6 * static_cast<double>(blocks.frequencies * blocks.all) *
                      static_cast<double>(s.groups * outputs * inputs);
  const double transformed = static_cast<double>(blocks.frequencies) *
                             static_cast<double>(s.k * s.c_per_group() + blocks.all * (s.c + s.k));
  return macs + kMacsPerTransform * transformed;
}

constexpr ConvRule kCudaRules[] = {
    {"direct", never, direct_elements, direct_cost, true, nullptr, true},
    {"depthwise", needs_depthwise, depthwise_elements, depthwise_cost, true, nullptr, true},
    {"im2col", never, im2col_elements, im2col_cost<1>, true, nullptr, false,
     im2col_cost<kTf32Rate>},
    {"implicit_gemm", needs_small_images, implicit_gemm_elements, implicit_gemm_cost<1>, true,
     nullptr, false, implicit_gemm_cost<kTf32Rate>},
    {"winograd", needs_dense_winograd, winograd_elements<2>, winograd_cost<2>, true},
    {"winograd4", needs_dense_winograd, winograd_elements<4>, winograd_cost<4>, true,
     "rounds about three times as much as winograd: ask for it by name or for precision 'high'"},
    {"fft", needs_small_planes<needs_fft>, fft_elements, fft_cost, true},
};

}  // namespace

const ConvRule* cuda_conv_rule(const std::string& algo) {
  for (const ConvRule& rule : kCudaRules)
    if (algo == rule.algo) return &rule;
  return nullptr;
}

}  // namespace lamina::ops
