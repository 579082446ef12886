// gemm: c = alpha op(a) op(b) + beta c (+ bias), row major, batched.
//
// Method        device/gemm_tile.h: float and double on the CUDA cores, 16-bit floats on the tensor
//               cores with float32 sums. Operands are read in sixteen bytes where they are aligned.
// Partitioning  one block a tile of c: 128 x 128 where that gives enough blocks to fill a GPU, else
//               64 x 64. The choice depends on the sizes only, and no sum on the choice.
// Floor         2 m n k operations; per tile of 128 x 128, k * 256 elements from L2.
#include "cuda/device/gemm_engine.h"
#include "cuda/device/gemm_operand.h"
#include "cuda/device/launch.h"
#include "cuda/gemm.h"
#include "cuda/instantiate.h"

namespace lamina::cuda {

using ops::GemmArgs;

// Rows of this thread's column of c, or of the sums in its place.
template <class T>
class MatrixStore {
 public:
  __device__ __forceinline__ MatrixStore(const GemmArgs<T>& args, Acc<T>* sums, int64_t batch,
                                         int64_t row, int64_t column)
      : args_(args),
        sums_(sums),
        first_(batch * args.stride_c + row * args.ldc + column),
        row_(row),
        rows_(column < args.n ? args.m - row : 0),
        bias_(args.bias_n && column < args.n ? widen(args.bias_n[column]) : Acc<T>(0)) {}

  __device__ __forceinline__ void operator()(int row, Acc<T> sum) const {
    if (row >= rows_) return;
    const int64_t at = first_ + row * args_.ldc;
    Acc<T> before = 0;
    if (args_.beta != Acc<T>(0)) before = args_.beta * (sums_ ? sums_[at] : widen(args_.c[at]));
    before += (args_.bias_m ? widen(args_.bias_m[row_ + row]) : Acc<T>(0)) + bias_;
    const Acc<T> result = fma(args_.alpha, sum, before);
    if (sums_)
      sums_[at] = result;
    else
      args_.c[at] = narrow<T>(result);
  }

 private:
  const GemmArgs<T>& args_;
  Acc<T>* sums_;
  int64_t first_, row_, rows_;
  Acc<T> bias_;
};

// Vectors of V elements along the direction in which each operand is contiguous.
template <class T, int SIDE, int V, bool TRANS_A, bool TRANS_B>
__global__ void __launch_bounds__((kGemmThreads<T, SIDE>), (kGemmBlocks<T, SIDE>))
    gemm_kernel(const GemmArgs<T> args, Acc<T>* sums, unsigned tiles_m, unsigned tiles_n) {
  constexpr bool kLinesA = V > 1 && TRANS_A, kLinesB = V > 1 && !TRANS_B;
  using Engine = typename EngineOf<T, SIDE, kLinesA, kLinesB>::Type;
  using A = MatrixOperand<T, typename Engine::template Map<SIDE, V, kLinesA>>;
  using B = MatrixOperand<T, typename Engine::template Map<SIDE, V, kLinesB>>;
  SIMT_DYNAMIC_SHARED(unsigned char, shared);
  const int64_t batch = blockIdx.x / (tiles_m * tiles_n);
  const TilePlace tile = tile_place(blockIdx.x % (tiles_m * tiles_n), tiles_m, tiles_n);
  const int64_t i = int64_t{tile.m} * SIDE, j = int64_t{tile.n} * SIDE;
  // Scalars take any steps: one kernel for every transposition.
  const bool trans_a = V > 1 ? TRANS_A : args.trans_a, trans_b = V > 1 ? TRANS_B : args.trans_b;
  const int64_t a_line = trans_a ? 1 : args.lda, a_depth = trans_a ? args.lda : 1;
  const int64_t b_line = trans_b ? args.ldb : 1, b_depth = trans_b ? 1 : args.ldb;
  A a(args.a + batch * args.stride_a + i * a_line, a_line, a_depth, args.m - i, args.k);
  B b(args.b + batch * args.stride_b + j * b_line, b_line, b_depth, args.n - j, args.k);
  gemm_block<Engine>(shared, a, b, args.k, [&] {
    return MatrixStore<T>(args, sums, batch, i, j + threadIdx.x % Engine::kN);
  });
}

template <class T, int SIDE, int V, bool TRANS_A, bool TRANS_B>
static void launch_gemm(const GemmArgs<T>& args, Acc<T>* sums) {
  constexpr bool kLinesA = V > 1 && TRANS_A, kLinesB = V > 1 && !TRANS_B;
  using Engine = typename EngineOf<T, SIDE, kLinesA, kLinesB>::Type;
  const int64_t tiles_m = ceil_div(args.m, SIDE), tiles_n = ceil_div(args.n, SIDE);
  launch(gemm_kernel<T, SIDE, V, TRANS_A, TRANS_B>, grid_size(tiles_m * tiles_n * args.batch),
         Engine::kThreads, Engine::kSharedBytes, args, sums, static_cast<unsigned>(tiles_m),
         static_cast<unsigned>(tiles_n));
}

template <class T, int SIDE>
static void launch_wide(const GemmArgs<T>& args, Acc<T>* sums) {
  constexpr int kV = kWide<T>;
  if (args.trans_a)
    args.trans_b ? launch_gemm<T, SIDE, kV, true, true>(args, sums)
                 : launch_gemm<T, SIDE, kV, true, false>(args, sums);
  else
    args.trans_b ? launch_gemm<T, SIDE, kV, false, true>(args, sums)
                 : launch_gemm<T, SIDE, kV, false, false>(args, sums);
}

// Whether every row of the stored operands is made of whole, aligned vectors.
template <class T>
static bool has_wide_rows(const GemmArgs<T>& args) {
  const int64_t extents = (args.trans_a ? args.m : args.k) | (args.trans_b ? args.k : args.n);
  const int64_t steps = args.lda | args.ldb | args.stride_a | args.stride_b;
  return is_wide(args.a, args.b) && (extents | steps) % kWide<T> == 0;
}

template <class T>
void gemm(const GemmArgs<T>& args, Acc<T>* sums) {
  constexpr int64_t kDeepest = int64_t{1} << 30;  // depths are 32-bit numbers in the kernels
  if (args.k > kDeepest) {
    GemmArgs<T> first = args, rest = args;
    first.k = kDeepest, rest.k = args.k - kDeepest;
    rest.a += kDeepest * (args.trans_a ? args.lda : 1);
    rest.b += kDeepest * (args.trans_b ? 1 : args.ldb);
    rest.beta = 1, rest.bias_m = rest.bias_n = nullptr;
    gemm(first, sums);
    return gemm(rest, sums);
  }
  constexpr int64_t kEnoughBlocks = 96;
  const int64_t large = args.batch * ceil_div(args.m, 128) * ceil_div(args.n, 128);
  if (sizeof(T) == sizeof(double) || !has_wide_rows(args))
    return launch_gemm<T, 64, 1, false, false>(args, sums);
  if constexpr (sizeof(T) < sizeof(double)) {
    if (large >= kEnoughBlocks && args.m > 64 && args.n > 64)
      launch_wide<T, 128>(args, sums);
    else
      launch_wide<T, 64>(args, sums);
  }
}

template <class T>
void gemm_fprop_tiled(const GemmArgs<T>& args) {
  gemm(args);
}

template void gemm<float>(const GemmArgs<float>&, float*);
template void gemm<double>(const GemmArgs<double>&, double*);
template void gemm<float16>(const GemmArgs<float16>&, float*);
template void gemm<bfloat16>(const GemmArgs<bfloat16>&, float*);
LAMINA_CUDA_INSTANTIATE(gemm_fprop_tiled, GemmArgs)

}  // namespace lamina::cuda
