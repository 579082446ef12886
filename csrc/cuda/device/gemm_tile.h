// One block's tile of a matrix product: the main loop under gemm and every convolution by GEMM.
//
//   c[i][j] = sum over p of a[i][p] * b[p][j]     i: lines of a, j: lines of b, p: depth
//
// Method        the next tiles of a and b are copied into shared memory, or fetched into registers
//               and put there, while the current one is multiplied: one barrier a tile. Results
//               leave through shared memory, so that neighbouring threads store neighbouring
//               columns.
// Operands      how tiles are read (a matrix, an unrolled input, a filter), one after another; they
//               name a TileMap, which says who fetches what. Engines multiply: device/gemm_fma.h on
//               the CUDA cores, device/gemm_mma.h on the tensor cores; they decide the layout in
//               shared memory.
// Numerics      each sum runs over p in order in one accumulator, whatever the tile.
#pragma once

#include "cuda/device/vector.h"

namespace lamina::cuda {

// Who fetches what of a tile of LINES x DEPTH: each of the block's threads kCount vectors of V
// elements, which lie along the lines (neighbouring lines are neighbours in memory) or along the
// depth. A warp reads DEPTH_LANES vectors of every line it touches when they lie along the depth.
template <int LINES, int DEPTH, int THREADS, int V, bool ALONG_LINES, int DEPTH_LANES>
struct TileMap {
  static constexpr int kLines = LINES, kDepth = DEPTH, kThreads = THREADS, kVector = V;
  static constexpr bool kAlongLines = ALONG_LINES;
  static constexpr int kCount = LINES * DEPTH / (V * THREADS);
  // A row of threads along the lines; along the depth, a warp of kAcross lines in a grid of
  // kLineBlocks x kDepthBlocks warps.
  static constexpr int kAcross = ALONG_LINES ? LINES / V : 32 / DEPTH_LANES;
  static constexpr int kWarps = THREADS / 32, kAllBlocks = LINES / kAcross;
  static constexpr int kLineBlocks = kAllBlocks < kWarps ? kAllBlocks : kWarps;
  static constexpr int kDepthBlocks = kWarps / kLineBlocks;
  static_assert(LINES * DEPTH % (V * THREADS) == 0 && THREADS % 32 == 0);
  static_assert(ALONG_LINES ? THREADS % kAcross == 0
                            : LINES % (kAcross * kLineBlocks) == 0 && kWarps % kLineBlocks == 0);

  // Vector i of thread t begins at line(t) + line_step(i), depth(t) + depth_step(i).
  __host__ __device__ static constexpr int line(unsigned t) {
    if (ALONG_LINES) return static_cast<int>(t % kAcross * V);
    return static_cast<int>(t / 32 % kLineBlocks * kAcross + t % 32 / DEPTH_LANES);
  }
  __host__ __device__ static constexpr int depth(unsigned t) {
    if (ALONG_LINES) return static_cast<int>(t / kAcross);
    return static_cast<int>((t / 32 / kLineBlocks * DEPTH_LANES + t % DEPTH_LANES) * V);
  }
  __host__ __device__ static constexpr int line_step(int i) {
    return ALONG_LINES ? 0 : i % kRepeats * (kLineBlocks * kAcross);
  }
  __host__ __device__ static constexpr int depth_step(int i) {
    return ALONG_LINES ? i * (THREADS / kAcross) : i / kRepeats * (kDepthBlocks * DEPTH_LANES * V);
  }

 private:
  static constexpr int kRepeats = ALONG_LINES ? 1 : LINES / (kAcross * kLineBlocks);
};

// The tile that a block computes. Eight rows of tiles at a time, so that the blocks that run
// together share lines of both operands.
struct TilePlace {
  int m, n;
};
__host__ __device__ constexpr TilePlace tile_place(unsigned index, unsigned tiles_m,
                                                   unsigned tiles_n) {
  constexpr unsigned kRows = 8;
  const unsigned band = index / (kRows * tiles_n), rest = index % (kRows * tiles_n);
  const unsigned left = tiles_m - band * kRows, rows = left < kRows ? left : kRows;
  return {static_cast<int>(band * kRows + rest % rows), static_cast<int>(rest / rows)};
}

constexpr size_t max_bytes(size_t a, size_t b) {
  return a > b ? a : b;
}

// Whether an operand puts its vectors together itself: gather(values).
template <class Operand>
inline constexpr bool kIsGathered = requires { Operand::kGathers; };
// Whether the vectors of an operand lie in shared memory as they do in global memory, and are of a
// size that can be copied asynchronously, without passing through registers.
template <class Engine, class Operand>
inline constexpr bool kIsCopied =
    !kIsGathered<Operand> &&
    (Operand::Map::kVector == 1 || Engine::template kKeepsVectors<typename Operand::Map>) &&  //
    Operand::Map::kVector * sizeof(typename Engine::Element) >= 4;

// Loads the vectors of an operand's current tile from source(i, inside), zero if not inside.
template <class Operand, class T, int V, int COUNT>
__device__ __forceinline__ void fetch_vectors(const Operand& operand,
                                              Vector<T, V> (&values)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; ++i) {
    bool inside;
    const T* const at = operand.source(i, inside);
    values[i] = Vector<T, V>{};
    if (inside) values[i] = load<T, V>(at);
  }
}

// Tiles of each operand in shared memory. Copies may run further ahead than registers can.
template <class Engine, class A, class B>
inline constexpr int kTileStages =
    kIsCopied<Engine, A> && kIsCopied<Engine, B> && A::kTableBytes + B::kTableBytes == 0
        ? Engine::kCopyStages
        : 2;
// Shared memory of a block: the tiles, whose place the results take, and the operands' tables.
template <class Engine, class A, class B>
inline constexpr size_t kTableOffset =
    max_bytes(kTileStages<Engine, A, B> * (Engine::kElementsA + Engine::kElementsB) *
                  sizeof(typename Engine::Element),
              2 * Engine::kStageRows * Engine::kPitch * sizeof(typename Engine::Sum));
template <class Engine, class A, class B>
inline constexpr size_t kGemmShared = kTableOffset<Engine, A, B> + A::kTableBytes + B::kTableBytes;

// One operand's way into shared memory.
template <class Engine, class Operand>
struct TileFeed {
  using Element = typename Engine::Element;
  using Map = typename Operand::Map;
  static constexpr bool kCopied = kIsCopied<Engine, Operand>;
  Vector<Element, Map::kVector> values[kCopied ? 1 : Map::kCount];

  // begin(operand, target), later end(target); a copy also needs the wait of the caller.
  __device__ __forceinline__ void begin(Operand& operand, Element* target) {
    if constexpr (kCopied) {
#pragma unroll
      for (int i = 0; i < Map::kCount; ++i) {
        bool inside;
        const Element* source = operand.source(i, inside);
        constexpr int kBytes = Map::kVector * static_cast<int>(sizeof(Element));
        simt::cp_async<kBytes>(target + Engine::template place<Map>(i), source,
                               inside ? kBytes : 0);
      }
    } else if constexpr (kIsGathered<Operand>) {
      operand.gather(values);
    } else {
      fetch_vectors(operand, values);
    }
    operand.advance();
  }
  __device__ __forceinline__ void end(Element* target) {
    if constexpr (!kCopied) Engine::template put<Map>(target, values);
  }
};

// Runs the block's product over `depth` elements. begin_store() is called behind the main loop, so
// that what it computes takes no registers there; of its result, store(row, value) gets every row
// of the column threadIdx.x % Engine::kN of the tile. All threads of the block call it.
template <class Engine, class A, class B, class BeginStore>
__device__ __forceinline__ void gemm_block(unsigned char* shared, A& a, B& b, int64_t depth,
                                           BeginStore begin_store) {
  using Element = typename Engine::Element;
  constexpr int kN = Engine::kN;
  constexpr int kStages = kTileStages<Engine, A, B>;
  Element* const tiles_a = reinterpret_cast<Element*>(shared);
  Element* const tiles_b = tiles_a + kStages * Engine::kElementsA;
  TileFeed<Engine, A> feed_a;
  TileFeed<Engine, B> feed_b;
  Engine engine;
  engine.clear();

  const int tiles = static_cast<int>((depth + Engine::kDepth - 1) / Engine::kDepth);
  if (A::kTableBytes + B::kTableBytes > 0 && tiles > 0) {
    a.prepare(0), b.prepare(0);
    a.prepare(1), b.prepare(1);
    __syncthreads();
  }
#pragma unroll
  for (int tile = 0; tile < kStages - 1; ++tile) {
    Element* const target_a = tiles_a + tile * Engine::kElementsA;
    Element* const target_b = tiles_b + tile * Engine::kElementsB;
    if (tile < tiles) {
      feed_a.begin(a, target_a), feed_b.begin(b, target_b);
      feed_a.end(target_a), feed_b.end(target_b);
    }
    simt::cp_async_commit();
  }
  simt::cp_async_wait<kStages - 2>();
  __syncthreads();
  int stage = 0;  // where the current tile is
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    const int now = kStages == 2 ? tile & 1 : stage;
    const int next = kStages == 2 ? now ^ 1 : now == 0 ? kStages - 1 : now - 1;  // the last one's
    const bool more = tile + kStages - 1 < tiles;
    Element* const next_a = tiles_a + next * Engine::kElementsA;
    Element* const next_b = tiles_b + next * Engine::kElementsB;
    if (more) feed_a.begin(a, next_a), feed_b.begin(b, next_b);
    simt::cp_async_commit();
    a.prepare(tile + 2), b.prepare(tile + 2);  // its slot was read before the last barrier
    engine.multiply(tiles_a + now * Engine::kElementsA, tiles_b + now * Engine::kElementsB);
    if (more) feed_a.end(next_a), feed_b.end(next_b);
    stage = now + 1 == kStages ? 0 : now + 1;
    simt::cp_async_wait<kStages - 2>();
    __syncthreads();
  }

  auto store = begin_store();
  using Sum = typename Engine::Sum;
  Sum* const stages = reinterpret_cast<Sum*>(shared);
  const int column = static_cast<int>(threadIdx.x % kN);
#pragma unroll
  for (int pass = 0; pass < Engine::kPasses; ++pass) {
    Sum* const stage = stages + (pass & 1) * Engine::kStageRows * Engine::kPitch;
    engine.stage(pass, stage);
    __syncthreads();  // the pass after next writes this stage again, behind the next barrier
    for (int row = static_cast<int>(threadIdx.x / kN); row < Engine::kStageRows;
         row += Engine::kThreads / kN)
      store(Engine::staged_row(pass, row), stage[row * Engine::kPitch + column]);
  }
}

}  // namespace lamina::cuda
