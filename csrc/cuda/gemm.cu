// gemm: c = alpha op(a) op(b) + beta c (+ bias), row major, batched.
//
// Method        device/gemm_tile.h: float and double on the CUDA cores, 16-bit floats, and float as
//               tf32 where the precision allows it, on the tensor cores with float32 sums. Operands
//               are read in sixteen bytes where they are aligned.
// Partitioning  one block a tile of c: 128 x 128 where that gives enough blocks to fill a GPU, else
//               64 x 64, and parts of k where those are few, which a second pass adds in order. The
//               choice depends on the sizes only.
// Floor         2 m n k operations; per tile of 128 x 128, k * 256 elements from L2.
#include "cuda/device/finish.h"
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
  __device__ __forceinline__ MatrixStore(const GemmArgs<T>& args, const Finish<T>& finish,
                                         Acc<T>* sums, int64_t batch, int64_t row, int64_t column)
      : args_(args),
        finish_(finish),
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
      args_.c[at] = finish_(result, at);
  }

 private:
  const GemmArgs<T>& args_;
  const Finish<T>& finish_;
  Acc<T>* sums_;
  int64_t first_, row_, rows_;
  Acc<T> bias_;
};

// The launch of a product, or of its `parts`: of each, `part_depth` of k.
template <class T>
struct Product {
  GemmArgs<T> args;
  Finish<T> finish;
  Acc<T>* sums;  // null, or takes the place of c: [part] of them, `part_elems` apart
  int64_t parts = 1, part_depth = 0, part_elems = 0;
};

// What a kernel is made of; vectors of V elements lie in the direction in which an operand is
// contiguous, scalars take any steps: one kernel for every transposition.
template <class T, class E, int SIDE, int V, bool TRANS_A, bool TRANS_B>
struct GemmTypes {
  static constexpr bool kLinesA = V > 1 && TRANS_A, kLinesB = V > 1 && !TRANS_B;
  using Engine = typename EngineOf<E, SIDE, kLinesA, kLinesB>::Type;
  using A = MatrixOperand<T, typename Engine::template Map<SIDE, V, kLinesA>>;
  using B = MatrixOperand<T, typename Engine::template Map<SIDE, V, kLinesB>>;
};

template <class T, class E, int SIDE, int V, bool TRANS_A, bool TRANS_B>
__global__ void __launch_bounds__((kGemmThreads<E, SIDE>), (kGemmBlocks<E, SIDE>))
    gemm_kernel(const __grid_constant__ Product<T> product, unsigned tiles_m, unsigned tiles_n) {
  using Types = GemmTypes<T, E, SIDE, V, TRANS_A, TRANS_B>;
  using Engine = typename Types::Engine;
  SIMT_DYNAMIC_SHARED(unsigned char, shared);
  const GemmArgs<T>& args = product.args;
  const TilePlace tile = tile_place(blockIdx.x % (tiles_m * tiles_n), tiles_m, tiles_n);
  const unsigned rest = blockIdx.x / (tiles_m * tiles_n),
                 batches = static_cast<unsigned>(args.batch);
  const int batch = static_cast<int>(SIDE == 128 ? rest : rest % batches);
  const int part = static_cast<int>(SIDE == 128 ? 0 : rest / batches);  // large tiles have one
  const int64_t i = int64_t{tile.m} * SIDE, j = int64_t{tile.n} * SIDE;
  const int64_t p = part * product.part_depth;
  const int depth = static_cast<int>(SIDE == 128 ? args.k : min(args.k - p, product.part_depth));
  const bool trans_a = V > 1 ? TRANS_A : args.trans_a, trans_b = V > 1 ? TRANS_B : args.trans_b;
  const int64_t a_line = trans_a ? 1 : args.lda, a_depth = trans_a ? args.lda : 1;
  const int64_t b_line = trans_b ? args.ldb : 1, b_depth = trans_b ? 1 : args.ldb;
  typename Types::A a(args.a + batch * args.stride_a + i * a_line + p * a_depth, a_line, a_depth,
                      args.m - i, depth);
  typename Types::B b(args.b + batch * args.stride_b + j * b_line + p * b_depth, b_line, b_depth,
                      args.n - j, depth);
  gemm_block<Engine>(shared, a, b, depth, [&] {
    Acc<T>* const sums = product.sums ? product.sums + part * product.part_elems : nullptr;
    return MatrixStore<T>(args, product.finish, sums, batch, int64_t{tile.m} * SIDE,
                          int64_t{tile.n} * SIDE + threadIdx.x % Engine::kN);
  });
}

template <class E, int SIDE, int V, bool TRANS_A, bool TRANS_B, class T>
static void launch_gemm(const Product<T>& product) {
  using Types = GemmTypes<T, E, SIDE, V, TRANS_A, TRANS_B>;
  const GemmArgs<T>& args = product.args;
  const int64_t tiles_m = ceil_div(args.m, SIDE), tiles_n = ceil_div(args.n, SIDE);
  launch(gemm_kernel<T, E, SIDE, V, TRANS_A, TRANS_B>,
         grid_size(tiles_m * tiles_n * args.batch * product.parts), kGemmThreads<E, SIDE>,
         kGemmShared<typename Types::Engine, typename Types::A, typename Types::B>, product,
         static_cast<unsigned>(tiles_m), static_cast<unsigned>(tiles_n));
}

template <class E, int SIDE, class T>
static void launch_wide(const Product<T>& product) {
  constexpr int kV = kWide<T>;
  if (product.args.trans_a)
    product.args.trans_b ? launch_gemm<E, SIDE, kV, true, true>(product)
                         : launch_gemm<E, SIDE, kV, true, false>(product);
  else
    product.args.trans_b ? launch_gemm<E, SIDE, kV, false, true>(product)
                         : launch_gemm<E, SIDE, kV, false, false>(product);
}

// Whether every row of the stored operands is made of whole, aligned vectors.
template <class T>
static bool has_wide_rows(const GemmArgs<T>& args) {
  const int64_t extents = (args.trans_a ? args.m : args.k) | (args.trans_b ? args.k : args.n);
  const int64_t steps = args.lda | args.ldb | args.stride_a | args.stride_b;
  return is_wide(args.a, args.b) && (extents | steps) % kWide<T> == 0;
}

template <class E, class T>
static void launch_small(const Product<T>& product) {
  if constexpr (sizeof(T) < sizeof(double))
    if (has_wide_rows(product.args)) return launch_wide<E, 64>(product);
  launch_gemm<E, 64, 1, false, false>(product);
}

// c, or the sums in its place, from the partial products.
template <class T>
__global__ void __launch_bounds__(256)
    gemm_parts_kernel(const __grid_constant__ GemmArgs<T> args,
                      const __grid_constant__ Finish<T> finish, Acc<T>* sums, const Acc<T>* partial,
                      int64_t parts) {
  const int64_t elems = args.batch * args.m * args.n;
  const int64_t at = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (at >= elems) return;
  Acc<T> sum = 0;
  for (int64_t part = 0; part < parts; ++part) sum += partial[part * elems + at];
  const int64_t row = at / args.n;
  MatrixStore<T>(args, finish, sums, row / args.m, row % args.m, at % args.n)(0, sum);
}

// Tiles enough to fill a large GPU are not there: parts of k side by side, added in order.
template <class E, class T>
static void gemm_in_parts(const GemmArgs<T>& args, Acc<T>* sums, int64_t parts) {
  const int64_t elems = args.batch * args.m * args.n;
  const int64_t part_depth = ceil_div(ceil_div(args.k, parts), 64) * 64;
  parts = ceil_div(args.k, part_depth);
  const Workspace partial(parts * elems * static_cast<int64_t>(sizeof(Acc<T>)));
  GemmArgs<T> plain = args;
  plain.alpha = 1, plain.beta = 0, plain.bias_m = plain.bias_n = nullptr;
  plain.ldc = args.n, plain.stride_c = args.m * args.n;
  launch_small<E>(Product<T>{plain, {}, partial.template get<Acc<T>>(), parts, part_depth, elems});
  launch(gemm_parts_kernel<T>, grid_size(ceil_div(elems, 256)), 256, 0, args,
         Finish<T>(args.epilogue), sums, partial.template get<Acc<T>>(), parts);
}

template <class E, class T>
static void multiply(const GemmArgs<T>& args, Acc<T>* sums) {
  const Product<T> whole{args, Finish<T>(args.epilogue), sums, 1, args.k};
  if constexpr (sizeof(T) < sizeof(double)) {
    constexpr int64_t kEnoughBlocks = 96;
    const int64_t tiles = args.batch * ceil_div(args.m, 128) * ceil_div(args.n, 128);
    if (tiles >= kEnoughBlocks && args.m > 64 && args.n > 64 && has_wide_rows(args))
      return launch_wide<E, 128>(whole);
  }
  constexpr int64_t kFullGpu = 528, kPartDepth = 256;
  const int64_t tiles = args.batch * ceil_div(args.m, 64) * ceil_div(args.n, 64);
  const int64_t parts = tiles ? min(kFullGpu / tiles, args.k / kPartDepth) : 1;
  if (parts > 1) return gemm_in_parts<E>(args, sums, parts);
  launch_small<E>(whole);
}

template <class T>
void gemm(const GemmArgs<T>& args, Acc<T>* sums) {
  constexpr int64_t kDeepest = int64_t{1} << 30;  // depths are 32-bit numbers in the kernels
  if (args.k > kDeepest) {
    GemmArgs<T> first = args, rest = args;
    first.k = kDeepest, rest.k = args.k - kDeepest;
    rest.a += kDeepest * (args.trans_a ? args.lda : 1);
    rest.b += kDeepest * (args.trans_b ? 1 : args.ldb);
    rest.beta = 1, rest.bias_m = rest.bias_n = nullptr, first.epilogue = {};
    gemm(first, sums);
    return gemm(rest, sums);
  }
  with_engine<T>(args.precision, [&]<class E>(E) { multiply<E>(args, sums); });
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
