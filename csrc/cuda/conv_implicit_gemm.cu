// conv, implicit GEMM: the matrix products of im2col, whose unrolled input exists only as tiles in
// shared memory.
//
//   fprop  y[k][n o] = weight[k][c r] col[c r][n o]
//   dgrad  each stride phase of grad_x (shared/conv_phase.h) as fprop of grad_y, with the filter of
//          the phase copied to the workspace
//   wgrad  grad_weight[k][c r] = sum over n, o of grad_y[k][n o] col[c r][n o]^T
//
// Source        Chetlur et al. 2014 (cuDNN).
// Method        device/gemm_tile.h with operands that unroll while they read
//               (device/unrolled_operand.h): pixels of all images are the columns, so small images
//               fill tiles too, and neighbouring threads read neighbouring pixels. Filters of one
//               tap at stride 1 are plain matrix products. For the tensor cores the depth runs over
//               (tap, channel) where vectors divide the channels, and the filter is copied so.
// Partitioning  one block a tile: 128 x 128 where that gives enough blocks, else 64 x 64; a launch
//               a phase. wgrad: parts of the pixels, which a second pass adds in order.
// Numerics      one accumulator a result, over (c, r) or pixels in order, whatever the tile; tf32
//               products of float where the precision allows them.
// Floor         multiply-adds of whole tiles; x is read once a tap, from the caches.
#include "cuda/device/finish.h"
#include "cuda/device/gemm_engine.h"
#include "cuda/device/gemm_operand.h"
#include "cuda/device/partial_sums.h"
#include "cuda/device/unrolled_operand.h"
#include "cuda/gemm.h"
#include "cuda/instantiate.h"
#include "shared/conv_phase.h"
#include "shared/conv_split.h"

namespace lamina::cuda {

using ops::ConvArgs;
using ops::ConvShape;
using ops::GemmArgs;

// ---- fprop, and the phases of dgrad

template <class T>
struct ImplicitPass {
  UnrolledShape shape;
  const T *x, *filter, *bias;  // x of image 0; bias [groups][outputs] or null
  T* y;
  Finish<T> finish{};
  int64_t pixels = 0, image = 0;  // pixels of all images; from an image of x to the next
  int64_t pitch = 0;              // filter [groups][outputs][pitch], zero from `depth` on
  int64_t y_plane = 0;
  int groups = 0, outputs = 0, channels = 0, depth = 0;
  // Position o is y_first + o * y_step of the result.
  int y_extent[3] = {}, y_first[3] = {}, y_step[3] = {};
};

// Rows of this thread's pixel in y.
template <class T>
class PixelStore {
 public:
  __device__ __forceinline__ PixelStore(const ImplicitPass<T>& pass, int group, int first_output,
                                        int64_t pixel)
      : pass_(pass), rows_(pixel < pass.pixels ? pass.outputs - first_output : 0) {
    const UnrolledShape& s = pass.shape;
    const int64_t n = pixel / s.out_size.divisor;
    int o = static_cast<int>(pixel - n * s.out_size.divisor), middle = s.out[2].split(o);
    const int plane = s.out[1].split(middle);
    const int64_t line = int64_t{pass.y_first[0] + plane * pass.y_step[0]} * pass.y_extent[1] +
                         pass.y_first[1] + middle * pass.y_step[1];
    const int64_t channel = int64_t{group} * pass.outputs + first_output;
    first_ = (n * pass.groups * pass.outputs + channel) * pass.y_plane + line * pass.y_extent[2] +
             pass.y_first[2] + o * pass.y_step[2];
    bias_ = pass.bias ? pass.bias + channel : nullptr;
  }
  __device__ __forceinline__ void operator()(int row, Acc<T> sum) const {
    if (row >= rows_) return;
    if (bias_) sum += widen(bias_[row]);
    const int64_t at = first_ + row * pass_.y_plane;
    pass_.y[at] = pass_.finish(sum, at);
  }

 private:
  const ImplicitPass<T>& pass_;
  const T* bias_;
  int64_t first_;
  int rows_;
};

// How the operand that needs no unrolling is read: the tensor cores take it in whole vectors, the
// other engine would have to scatter those.
template <class T, class E>
inline constexpr bool kOnTensorCores = sizeof(T) == 2 || !std::is_same_v<T, E>;
template <class T, class E>
inline constexpr int kPlainVector = kOnTensorCores<T, E> ? kWide<T> : 1;

// The filters are read in vectors of V.
template <class T, class E, int SIDE, int V, bool TAP_MAJOR>
struct ImplicitTile {
  using Engine = typename EngineOf<E, SIDE, false, true>::Type;
  using A = MatrixOperand<T, typename Engine::template Map<SIDE, V, false>, unsigned>;
  using B = PixelOperand<T, typename Engine::template Map<SIDE, 1, true>>;
};
template <class T, class E, int SIDE, int V>
struct ImplicitTile<T, E, SIDE, V, true> {
  using Engine = typename EngineOf<E, SIDE, false, false>::Type;
  using A = MatrixOperand<T, typename Engine::template Map<SIDE, V, false>, unsigned>;
  using B = ChannelOperand<T, typename Engine::template GatherMap<SIDE>>;
};

template <class T, class E, int SIDE, int V, bool TAP_MAJOR>
__global__ void __launch_bounds__((kGemmThreads<E, SIDE>), (kGemmBlocks<E, SIDE>))
    conv_implicit_gemm_kernel(const __grid_constant__ ImplicitPass<T> pass, unsigned tiles_m,
                              unsigned tiles_n) {
  using Tile = ImplicitTile<T, E, SIDE, V, TAP_MAJOR>;
  using Engine = typename Tile::Engine;
  using A = typename Tile::A;
  using B = typename Tile::B;
  SIMT_DYNAMIC_SHARED(unsigned char, shared);
  auto& table = *reinterpret_cast<typename B::Table*>(shared + kTableOffset<Engine, A, B>);
  const int group = static_cast<int>(blockIdx.x / (tiles_m * tiles_n));
  const TilePlace tile = tile_place(blockIdx.x % (tiles_m * tiles_n), tiles_m, tiles_n);
  const int output = tile.m * SIDE;
  A a(pass.filter + (int64_t{group} * pass.outputs + output) * pass.pitch,
      static_cast<unsigned>(pass.pitch), 1, pass.outputs - output, pass.pitch);
  B b(pass.shape, table, pass.x + int64_t{group} * pass.channels * pass.shape.in_size, pass.image,
      int64_t{tile.n} * SIDE + B::Map::line(threadIdx.x), pass.pixels, pass.depth);
  gemm_block<Engine>(shared, a, b, pass.depth, [&] {
    return PixelStore<T>(pass, group, output, int64_t{tile.n} * SIDE + threadIdx.x % SIDE);
  });
}

template <class E, int SIDE, int V, bool TAP_MAJOR, class T>
static void launch_pass(const ImplicitPass<T>& pass) {
  using Tile = ImplicitTile<T, E, SIDE, V, TAP_MAJOR>;
  const int64_t tiles_m = ceil_div(pass.outputs, SIDE), tiles_n = ceil_div(pass.pixels, SIDE);
  launch(conv_implicit_gemm_kernel<T, E, SIDE, V, TAP_MAJOR>,
         grid_size(pass.groups * tiles_m * tiles_n), kGemmThreads<E, SIDE>,
         kGemmShared<typename Tile::Engine, typename Tile::A, typename Tile::B>, pass,
         static_cast<unsigned>(tiles_m), static_cast<unsigned>(tiles_n));
}

template <class E, bool TAP_MAJOR, class T>
static void run_pass(const ImplicitPass<T>& pass) {
  constexpr int64_t kEnoughBlocks = 96;
  constexpr int kV = kPlainVector<T, E>;
  const int64_t large = pass.groups * ceil_div(pass.outputs, 128) * ceil_div(pass.pixels, 128);
  if (!TAP_MAJOR && kV > 1 && (!is_wide(pass.filter) || pass.pitch % kV != 0))
    return launch_pass<E, 64, 1, false>(pass);
  if constexpr (sizeof(T) < sizeof(double))
    if (large >= kEnoughBlocks && pass.outputs > 64)
      return launch_pass<E, 128, kV, TAP_MAJOR>(pass);
  launch_pass<E, 64, kV, TAP_MAJOR>(pass);
}

// What fprop and a phase of dgrad have in common; x, c and k as fprop would name them.
template <class T>
static ImplicitPass<T> implicit_pass(const ConvShape& s, const T* x, const T* filter,
                                     const ConvArgs<T>& args) {
  ImplicitPass<T> pass{UnrolledShape(s), x,           filter,
                       args.bias,        args.result, Finish<T>(args.epilogue)};
  pass.pixels = s.n * s.out_size(), pass.image = s.c * s.in_size();
  pass.groups = static_cast<int>(s.groups), pass.outputs = static_cast<int>(s.k_per_group());
  pass.channels = static_cast<int>(s.c_per_group());
  pass.depth = static_cast<int>(s.c_per_group() * s.kernel_size());
  return pass;
}

// One tap that meets every pixel once: col is x itself.
static bool is_pointwise(const ConvShape& s) {
  for (int axis = 0; axis < 3; ++axis)
    if (s.kernel[axis] != 1 || s.stride[axis] != 1 || s.pad[axis] != 0 || s.in[axis] != s.out[axis])
      return false;
  return true;
}
// y[n] = weight x[n], or grad_x[n] = weight^T grad_y[n].
template <class T>
static void pointwise(const ConvArgs<T>& args, bool transposed) {
  const ConvShape& s = args.shape;
  const int64_t k = s.k_per_group(), c = s.c_per_group(), out = s.out_size();
  GemmArgs<T> product;
  product.batch = s.n, product.n = out, product.lda = c, product.ldb = product.ldc = out;
  product.trans_a = transposed, product.precision = args.precision;
  product.m = transposed ? c : k, product.k = transposed ? k : c;
  product.stride_b = s.groups * product.k * out, product.stride_c = s.groups * product.m * out;
  for (int64_t g = 0; g < s.groups; ++g) {
    product.a = args.weight + g * k * c;
    product.b = (transposed ? args.grad_y : args.x) + g * product.k * out;
    product.c = args.result + g * product.m * out;
    product.epilogue = args.epilogue.at(g * product.m * out);
    product.bias_m = args.bias ? args.bias + g * product.m : nullptr;
    gemm(product);
  }
}

// A filter in the order in which a kernel reads it: [outputs][channels, taps] of a group, or [taps,
// channels] if tap_major, in rows of `pitch`.
struct FilterOrder {
  FastDivisor pitch, taps, channels, kernel[3];
  int first[3], step[3];  // tap t is tap first + t * step of the whole filter
  int whole[3];
  int outputs, depth, blocks;          // of a group; blocks of 256 values
  int step_output, step_channel, all;  // in the whole filter, in taps; filters of a group

  // own: the shape that the kernel computes as fprop; turned: weight is [channel][output].
  FilterOrder(const ConvShape& own, const ConvShape& s, int64_t pitch_, bool turned)
      : pitch(max(pitch_, int64_t{1})),
        taps(max(own.kernel_size(), int64_t{1})),
        channels(max(own.c_per_group(), int64_t{1})),
        outputs(static_cast<int>(own.k_per_group())),
        depth(static_cast<int>(own.c_per_group() * own.kernel_size())),
        blocks(static_cast<int>(ceil_div(own.k_per_group() * pitch_, 256))),
        step_output(turned ? 1 : static_cast<int>(own.c_per_group())),
        step_channel(turned ? static_cast<int>(own.k_per_group()) : 1),
        all(static_cast<int>(own.k_per_group() * own.c_per_group())) {
    for (int axis = 0; axis < 3; ++axis) {
      kernel[axis] = FastDivisor(max(own.kernel[axis], int64_t{1}));
      whole[axis] = static_cast<int>(s.kernel[axis]);
      first[axis] = 0, step[axis] = 1;
    }
  }
};

// filter[g][output][..] = weight[g][output][channel][tap], rows filled up with zeros.
template <class T>
__global__ void __launch_bounds__(256)
    order_filter_kernel(const __grid_constant__ FilterOrder order, bool tap_major, const T* weight,
                        T* filter) {
  const int64_t group = blockIdx.x / static_cast<unsigned>(order.blocks);
  int t = static_cast<int>(blockIdx.x % static_cast<unsigned>(order.blocks) * 256 + threadIdx.x);
  const int at = t, output = order.pitch.split(t);
  if (output >= order.outputs) return;
  T value{};
  if (t < order.depth) {
    int channel = t, tap = t;
    if (tap_major)
      tap = order.channels.split(channel);
    else
      channel = order.taps.split(tap);
    int middle = order.kernel[2].split(tap);
    const int plane = order.kernel[1].split(middle);
    const int r = ((order.first[0] + plane * order.step[0]) * order.whole[1] + order.first[1] +
                   middle * order.step[1]) *
                      order.whole[2] +
                  order.first[2] + tap * order.step[2];
    value = weight[(group * order.all + output * order.step_output + channel * order.step_channel) *
                       (int64_t{order.whole[0]} * order.whole[1] * order.whole[2]) +
                   r];
  }
  filter[group * order.outputs * order.pitch.divisor + at] = value;
}

template <class T>
static void order_filter(const ConvShape& s, const FilterOrder& order, bool tap_major,
                         const T* weight, T* filter) {
  if (order.depth > 0)
    launch(order_filter_kernel<T>, grid_size(s.groups * order.blocks), 256, 0, order, tap_major,
           weight, filter);
}

// Whether vectors of channels can be gathered.
template <class T, class E>
static bool has_whole_channels(const ConvShape& s) {
  return kOnTensorCores<T, E> && s.c_per_group() > 0 && s.c_per_group() % kWide<T> == 0;
}

template <class T>
void conv_fprop_implicit_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  if (is_pointwise(s)) return pointwise(args, false);
  ImplicitPass<T> pass = implicit_pass(s, args.x, args.weight, args);
  pass.pitch = pass.depth, pass.y_plane = s.out_size();
  for (int axis = 0; axis < 3; ++axis)
    pass.y_extent[axis] = static_cast<int>(s.out[axis]), pass.y_step[axis] = 1;
  with_engine<T>(args.precision, [&]<class E>(E) {
    if constexpr (kOnTensorCores<T, E>)
      if (has_whole_channels<T, E>(s)) {
        const Workspace ordered(s.weight_elems() * static_cast<int64_t>(sizeof(T)));
        order_filter(s, FilterOrder(s, s, pass.pitch, false), true, args.weight, ordered.get<T>());
        pass.filter = ordered.get<T>();
        return run_pass<E, true>(pass);
      }
    run_pass<E, false>(pass);
  });
}

template <class T>
void conv_dgrad_implicit_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  if (is_pointwise(s)) return pointwise(args, true);
  for (int64_t which = 0; which < conv_phases(s); ++which) {
    const ConvPhase phase = conv_phase(s, which);
    ImplicitPass<T> pass = implicit_pass(phase.shape, args.grad_y, args.workspace, args);
    pass.pitch = phase_filter_pitch(pass.depth), pass.y_plane = s.in_size();
    FilterOrder order(phase.shape, s, pass.pitch, true);
    for (int axis = 0; axis < 3; ++axis) {
      order.first[axis] = static_cast<int>(phase.first[axis]);
      order.step[axis] = -static_cast<int>(phase.step[axis]);
      pass.y_extent[axis] = static_cast<int>(s.in[axis]);
      pass.y_first[axis] = static_cast<int>(phase.offset[axis]);
      pass.y_step[axis] = static_cast<int>(s.stride[axis]);
    }
    with_engine<T>(args.precision, [&]<class E>(E) {
      const bool tap_major = pass.depth > 0 && has_whole_channels<T, E>(phase.shape);
      order_filter(s, order, tap_major, args.weight, args.workspace);
      if constexpr (kOnTensorCores<T, E>)
        if (tap_major) return run_pass<E, true>(pass);
      run_pass<E, false>(pass);
    });
  }
}

// ---- wgrad

template <class T>
struct ImplicitGradient {
  UnrolledShape shape;
  const T *x, *grad_y;
  T* result;        // [groups][outputs][columns], if there is one part
  Acc<T>* partial;  // [parts][groups][outputs][columns], if there are more
  int64_t pixels = 0, part_size = 0;
  int64_t image_x = 0, image_y = 0;
  int groups = 0, outputs = 0, channels = 0, columns = 0, parts = 0;
};

// grad_y is read in vectors of V.
template <class T, class E, int SIDE, int V>
struct GradientTile {
  using Engine = typename EngineOf<E, SIDE, false, false>::Type;
  using B = TapOperand<T, typename Engine::template Map<SIDE, 1, false>>;
  using A = GradOperand<T, typename Engine::template Map<SIDE, V, false>, typename B::Table>;
};

template <class T, class E, int SIDE, int V>
__global__ void __launch_bounds__((kGemmThreads<E, SIDE>), (kGemmBlocks<E, SIDE>))
    conv_implicit_wgrad_kernel(const __grid_constant__ ImplicitGradient<T> gradient,
                               unsigned tiles_m, unsigned tiles_n) {
  using Engine = typename GradientTile<T, E, SIDE, V>::Engine;
  using A = typename GradientTile<T, E, SIDE, V>::A;
  using B = typename GradientTile<T, E, SIDE, V>::B;
  SIMT_DYNAMIC_SHARED(unsigned char, shared);
  auto& table = *reinterpret_cast<typename B::Table*>(shared + kTableOffset<Engine, A, B>);
  const TilePlace tile = tile_place(blockIdx.x % (tiles_m * tiles_n), tiles_m, tiles_n);
  const unsigned rest = blockIdx.x / (tiles_m * tiles_n);
  const int group = static_cast<int>(rest % static_cast<unsigned>(gradient.groups));
  const int64_t part = rest / static_cast<unsigned>(gradient.groups);
  const int output = tile.m * SIDE, column = tile.n * SIDE;

  // The part's pixels, counted from its first image.
  const int64_t begin = part * gradient.part_size;
  const int depth = static_cast<int>(min(gradient.part_size, gradient.pixels - begin));
  const int64_t out = gradient.shape.out_size.divisor, image = begin / out;
  const T* const grad_y = gradient.grad_y + image * gradient.image_y +
                          (int64_t{group} * gradient.outputs + output) * out;
  const T* const x = gradient.x + image * gradient.image_x +
                     int64_t{group} * gradient.channels * gradient.shape.in_size;
  A a(table, grad_y, gradient.shape.out_size.divisor, gradient.outputs - output, depth);
  B b(gradient.shape, table, x, static_cast<int>(gradient.image_x),
      static_cast<int>(gradient.image_y), static_cast<int>(begin - image * out), depth, column,
      gradient.columns - column);
  gemm_block<Engine>(shared, a, b, depth, [&] {
    const int own = column + static_cast<int>(threadIdx.x % SIDE);
    const int rows = own < gradient.columns ? gradient.outputs - output : 0;
    const int64_t row0 = (part * gradient.groups + group) * gradient.outputs + output;
    return [=, &gradient](int row, Acc<T> sum) {
      if (row >= rows) return;
      const int64_t at = (row0 + row) * gradient.columns + own;
      if (gradient.parts > 1)
        gradient.partial[at] = sum;
      else
        gradient.result[at] = narrow<T>(sum);
    };
  });
}

template <class E, int SIDE, int V, class T>
static void launch_gradient(const ImplicitGradient<T>& gradient) {
  using Tile = GradientTile<T, E, SIDE, V>;
  const int64_t tiles_m = ceil_div(gradient.outputs, SIDE);
  const int64_t tiles_n = ceil_div(gradient.columns, SIDE);
  launch(conv_implicit_wgrad_kernel<T, E, SIDE, V>,
         grid_size(gradient.parts * gradient.groups * tiles_m * tiles_n), kGemmThreads<E, SIDE>,
         kGemmShared<typename Tile::Engine, typename Tile::A, typename Tile::B>, gradient,
         static_cast<unsigned>(tiles_m), static_cast<unsigned>(tiles_n));
}

template <class E, class T>
static void run_gradient(const ImplicitGradient<T>& gradient, bool large) {
  constexpr int kV = kPlainVector<T, E>;
  if (kV > 1 && (!is_wide(gradient.grad_y) || gradient.shape.out_size.divisor % kV != 0))
    return launch_gradient<E, 64, 1>(gradient);
  if constexpr (sizeof(T) < sizeof(double))
    if (large) return launch_gradient<E, 128, kV>(gradient);
  launch_gradient<E, 64, kV>(gradient);
}

template <class T>
void conv_wgrad_implicit_gemm(const ConvArgs<T>& args) {
  const ConvShape& s = args.shape;
  const ConvSplit split = implicit_wgrad_split(s);
  ImplicitGradient<T> gradient{UnrolledShape(s), args.x, args.grad_y, args.result,
                               reinterpret_cast<Acc<T>*>(args.workspace)};
  gradient.pixels = s.n * s.out_size(), gradient.part_size = split.part_size;
  gradient.image_x = s.c * s.in_size(), gradient.image_y = s.k * s.out_size();
  gradient.groups = static_cast<int>(s.groups);
  gradient.outputs = static_cast<int>(s.k_per_group());
  gradient.channels = static_cast<int>(s.c_per_group());
  gradient.columns = static_cast<int>(s.c_per_group() * s.kernel_size());
  gradient.parts = static_cast<int>(split.parts);
  with_engine<T>(args.precision,
                 [&]<class E>(E) { run_gradient<E>(gradient, implicit_wgrad_side(s) == 128); });
  if (split.parts > 1)
    add_partial_sums(gradient.partial, args.result, s.weight_elems(), split.parts);
}

LAMINA_CUDA_INSTANTIATE(conv_fprop_implicit_gemm, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_dgrad_implicit_gemm, ConvArgs)
LAMINA_CUDA_INSTANTIATE(conv_wgrad_implicit_gemm, ConvArgs)

}  // namespace lamina::cuda
