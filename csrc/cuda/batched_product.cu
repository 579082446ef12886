// The products of batched_product.h.
//
// Method        the main loop of device/gemm_tile.h on the CUDA cores; rows beyond the matrix are
//               replaced by zeros.
// Partitioning  by output tile, and the depth in `splits` parts that write matrices of their own.
#include "cuda/batched_product.h"
#include "cuda/device/gemm_fma.h"
#include "cuda/device/launch.h"

namespace lamina::cuda {

// The planes of an operand one after the other, each filled up to whole tiles of the depth.
template <class T, class MAP, bool TWO>
class PlanesOperand {
 public:
  using Map = MAP;
  static constexpr size_t kTableBytes = 0;

  // What the change of planes needs waits in shared memory, not in registers.
  struct Planes {
    const T* second;  // its element (line 0, 0), as `first` below
    int depth;
  };

  // Lines and depth from `first` on.
  __device__ __forceinline__ PlanesOperand(const T* first, int pitch, int lines, int depth,
                                           const Planes& planes)
      : planes_(planes), pitch_(pitch), lines_(lines - Map::line(threadIdx.x)) {
    begin(first, depth);
  }

  __device__ __forceinline__ void prepare(int) {}

  __device__ __forceinline__ const T* source(int i, bool& inside) const {
    inside = Map::line_step(i) < lines_ && Map::depth_step(i) < depth_;
    return source_ + step(Map::line_step(i), Map::depth_step(i));
  }
  __device__ __forceinline__ void advance() {
    source_ += step(0, Map::kDepth);
    depth_ -= Map::kDepth;
    // All threads at the same tile: what counts is the depth left at the tile's own beginning.
    if (TWO && depth_ + Map::depth(threadIdx.x) <= 0) begin(planes_.second, planes_.depth);
  }

 private:
  __device__ __forceinline__ int64_t step(int line, int depth) const {
    return Map::kAlongLines ? int64_t{depth} * pitch_ + line : int64_t{line} * pitch_ + depth;
  }
  __device__ __forceinline__ void begin(const T* plane, int depth) {
    source_ = plane + step(Map::line(threadIdx.x), Map::depth(threadIdx.x));
    depth_ = depth - Map::depth(threadIdx.x);
  }

  const Planes& planes_;
  const int pitch_;
  const int lines_;  // from this thread's first vector on, as depth_
  int depth_;
  const T* source_;
};

// Tiles of SIDE x SIDE. The largest leave no registers for a second plane.
template <class A, int SIDE>
using ProductEngine = FmaEngine<A, SIDE, SIDE, 16, SIDE == 32 ? 4 : 8, SIDE == 128 ? 8 : 4>;

template <int SIDE>
inline constexpr bool kTakesComplex = SIDE < 128;

template <class A, int SIDE, bool ALONG_DEPTH>
using ProductOperand =
    PlanesOperand<A, typename ProductEngine<A, SIDE>::template Map<SIDE, kWide<A>, !ALONG_DEPTH>,
                  kTakesComplex<SIDE>>;

template <class A, int SIDE, bool ALONG_DEPTH>
__global__ void __launch_bounds__(ProductEngine<A, SIDE>::kThreads,
                                  512 / ProductEngine<A, SIDE>::kThreads / (sizeof(A) / 4))
    batched_product_kernel(BatchedProduct<A> p, unsigned tiles_m, unsigned tiles_n) {
  using Engine = ProductEngine<A, SIDE>;
  using Operand = ProductOperand<A, SIDE, ALONG_DEPTH>;
  SIMT_DYNAMIC_SHARED(unsigned char, shared);

  // The tiles of a matrix column run together: they share b.
  unsigned index = blockIdx.x;
  const int m0 = static_cast<int>(index % tiles_m) * SIDE;
  index /= tiles_m;
  const int part_m = static_cast<int>(index % static_cast<unsigned>(p.parts));
  index /= static_cast<unsigned>(p.parts);
  const int n0 = static_cast<int>(index % tiles_n) * SIDE;
  index /= tiles_n;
  const int split = static_cast<int>(index % static_cast<unsigned>(p.splits));
  const int64_t matrix = index / static_cast<unsigned>(p.splits);

  const int begin = split * p.split_depth;
  const int depth = max(0, p.splits > 1 ? min(p.depth - begin, p.split_depth) : p.depth);
  const int64_t line_a =
      ALONG_DEPTH ? int64_t{m0} * p.pitch_a + begin : m0 + int64_t{begin} * p.pitch_a;
  const int64_t line_b =
      ALONG_DEPTH ? int64_t{n0} * p.pitch_b + begin : n0 + int64_t{begin} * p.pitch_b;
  // The planes re of b meet re and -im of a, the planes im meet im and re.
  const A* const from_a = p.a + matrix * p.stride_a + line_a;
  const A* const from_b = p.b + matrix * p.stride_b + line_b;
  __shared__ typename Operand::Planes planes[2];
  if (threadIdx.x == 0) {
    planes[0] = {from_a + (part_m ? 0 : p.plane_a), depth};
    planes[1] = {from_b + p.plane_b, depth};
  }
  __syncthreads();
  Operand a(from_a + (part_m ? 2 * p.plane_a : 0), p.pitch_a, p.m - m0, depth, planes[0]);
  Operand b(from_b, p.pitch_b, p.n - n0, depth, planes[1]);
  const int64_t whole = (depth + Engine::kDepth - 1) / Engine::kDepth * Engine::kDepth;

  gemm_block<Engine>(shared, a, b, p.parts * whole, [&] {
    const int column = n0 + static_cast<int>(threadIdx.x % SIDE);
    A* const c = p.c + matrix * p.stride_c + part_m * p.plane_c + split * p.split_stride + column;
    const int rows = column < p.n ? p.m - m0 : 0;
    return [&p, c, rows, m0](int row, A sum) {
      if (row >= rows) return;
      A* const place = c + int64_t{m0 + row} * p.pitch_c;
      *place = p.accumulate ? *place + sum : sum;
    };
  });
}

template <int SIDE, bool ALONG_DEPTH, class A>
static void launch_product(const BatchedProduct<A>& p) {
  using Engine = ProductEngine<A, SIDE>;
  using Operand = ProductOperand<A, SIDE, ALONG_DEPTH>;
  const int64_t tiles_m = ceil_div(p.m, SIDE), tiles_n = ceil_div(p.n, SIDE);
  launch(batched_product_kernel<A, SIDE, ALONG_DEPTH>,
         grid_size(tiles_m * tiles_n * p.parts * p.splits * p.batch), Engine::kThreads,
         kGemmShared<Engine, Operand, Operand>, p, static_cast<unsigned>(tiles_m),
         static_cast<unsigned>(tiles_n));
}

// Elements that tiles of this size compute, weighted by how slow small tiles are.
constexpr int64_t tiled_work(int64_t m, int64_t n, int64_t tile, int64_t percent) {
  return ceil_div(m, tile) * ceil_div(n, tile) * tile * tile * percent;
}

// Chooses the tile by the sizes alone; no sum depends on the choice.
template <bool ALONG_DEPTH, class A>
void run_batched_product(const BatchedProduct<A>& p) {
  const int64_t small = tiled_work(p.m, p.n, 32, 180), middle = tiled_work(p.m, p.n, 64, 125);
  if constexpr (sizeof(A) < sizeof(double)) {
    if (p.parts == 1 && tiled_work(p.m, p.n, 128, 100) <= min(small, middle))
      return launch_product<128, ALONG_DEPTH>(p);
  }
  small < middle ? launch_product<32, ALONG_DEPTH>(p) : launch_product<64, ALONG_DEPTH>(p);
}

template void run_batched_product<false>(const BatchedProduct<float>&);
template void run_batched_product<true>(const BatchedProduct<float>&);
template void run_batched_product<false>(const BatchedProduct<double>&);
template void run_batched_product<true>(const BatchedProduct<double>&);

}  // namespace lamina::cuda
