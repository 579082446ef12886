// permute: y = x with its axes in another order (ops/permute.h).
//
// Method        axes that stay neighbours are merged. Where the innermost axis stays, rows are
//               copied in the widest words that fit. Elsewhere a tile of the innermost axes of x
//               and y goes through shared memory: read along the one, written along the other.
// Partitioning  rows: device/plane_grid.h. Tiles: a block for kDepth tiles along the longest of the
//               other axes.
// Floor         one read and one write of the tensor.
#include "cuda/device/plane_grid.h"
#include "cuda/device/vector.h"
#include "cuda/instantiate.h"
#include "ops/permute.h"

namespace lamina::cuda {

using ops::PermuteArgs;

static constexpr int kThreads = PlaneGrid<int, 1>::kThreads;

struct Axis {
  int64_t size, in, out;  // its strides in x and y
};

// The axes without those of size 1, outermost of y first, neighbours of y and x merged.
struct Axes {
  Axis axis[ops::kPermuteAxes];
  int rank = 0;

  template <class T>
  explicit Axes(const PermuteArgs<T>& args) {
    int64_t stride = 1;
    for (int i = ops::kPermuteAxes - 1; i >= 0; --i) {
      const Axis next{args.size[i], args.stride[i], stride};
      stride *= next.size;
      if (next.size == 1) continue;
      Axis* inner = rank > 0 ? &axis[rank - 1] : nullptr;
      if (inner && next.in == inner->size * inner->in)
        inner->size *= next.size;
      else
        axis[rank++] = next;
    }
    if (rank == 0) axis[rank++] = {1, 1, 1};
    for (int i = 0; i < rank / 2; ++i) std::swap(axis[i], axis[rank - 1 - i]);
  }
};

// ---- rows

// Where each row of y starts in x.
struct PermutedRows {
  static constexpr int kMost = ops::kPermuteAxes - 1;
  Axis axis[kMost];
  int count;  // of axes

  template <class Offset>
  __device__ __forceinline__ int64_t source(Offset row) const {
    int64_t at = 0;
#pragma unroll  // constant indices: the axes stay where the arguments are
    for (int i = kMost - 1; i > 0; --i) {
      if (i >= count) continue;
      const Offset size = static_cast<Offset>(axis[i].size), rest = row / size;
      at += (row - rest * size) * axis[i].in;
      row = rest;
    }
    return at + row * axis[0].in;
  }
};

template <class Offset>
inline constexpr int kAtOnce = sizeof(Offset) == 4 ? 4 : 1;
template <class Offset>
using RowGrid = PlaneGrid<Offset, kAtOnce<Offset>>;

template <class Word, class Offset>
__global__ void __launch_bounds__(kThreads)
    permute_rows_kernel(const PermutedRows rows, const RowGrid<Offset> grid, const Word* x,
                        Word* y) {
  constexpr int kRows = kAtOnce<Offset>;
  PlaneWalk walk(grid);
  if (!walk.any()) return;
  for (; walk.more(); walk.next()) {
    Word word[kRows];
    for (int k = 0; k < kRows; ++k)
      word[k] = x[rows.source(static_cast<Offset>(walk.plane(k))) + walk.position];
    for (int k = 0; k < kRows; ++k)
      if (walk.has(k)) y[int64_t{walk.plane(k)} * grid.positions + walk.position] = word[k];
  }
}

template <class Word>
static void copy_rows(const Axes& axes, const void* x, void* y, int64_t words_per_element,
                      int64_t elements_per_word) {
  const auto words = [&](int64_t n) { return n * words_per_element / elements_per_word; };
  PermutedRows rows{};
  rows.count = axes.rank - 1;
  int64_t count = 1;
  for (int i = 0; i < rows.count; ++i) {
    rows.axis[i] = axes.axis[i];
    rows.axis[i].in = words(rows.axis[i].in);
    count *= rows.axis[i].size;
  }
  const int64_t width = words(axes.axis[axes.rank - 1].size);
  const auto run = [&]<class Offset>(Offset) {
    const RowGrid<Offset> grid(width, count);
    launch(permute_rows_kernel<Word, Offset>, grid.size(), kThreads, 0, rows, grid,
           static_cast<const Word*>(x), static_cast<Word*>(y));
  };
  if (fit_int(width, count))
    run(int{});
  else
    run(int64_t{});
}

// ---- tiles

static constexpr int kTileElements = 1024;
static constexpr int kPerThread = kTileElements / kThreads;
static constexpr int kDepth = 4;  // tiles of a block
static constexpr int kOthers = 3;

// Tiles of 2^rows_log x 2^columns_log elements, rows along x's innermost axis, columns along y's,
// times 2^depth_log where both are short.
struct Tiles {
  Axis row, column;     // row.in = column.out = 1
  Axis depth;           // the longest of the other axes
  Axis other[kOthers];  // the rest of them
  int rows_log, columns_log, depth_log;
  unsigned row_tiles, column_tiles;
  int skew, skew_log;

  // Where element c of row r, all depths counted, lies in shared memory: lanes along either axis
  // meet different banks.
  __device__ __forceinline__ int at(int r, int c) const {
    return (r << columns_log) + c + (r * skew >> skew_log);
  }
};

template <class Word>
__global__ void __launch_bounds__(kThreads)
    permute_tiles_kernel(const Tiles tiles, const Word* x, Word* y) {
  __shared__ Word tile[2 * kTileElements];  // half of it for the skew
  unsigned block = blockIdx.x;
  const int64_t column0 = int64_t{block % tiles.column_tiles} << tiles.columns_log;
  block /= tiles.column_tiles;
  const int64_t row0 = int64_t{block % tiles.row_tiles} << tiles.rows_log;
  block /= tiles.row_tiles;
  x += row0 + column0 * tiles.column.in, y += row0 * tiles.row.out + column0;
  for (int i = 0; i < kOthers; ++i) {
    const unsigned size = static_cast<unsigned>(tiles.other[i].size);  // at most the grid's
    x += block % size * tiles.other[i].in, y += block % size * tiles.other[i].out;
    block /= size;
  }
  const int64_t rows = tiles.row.size - row0, columns = tiles.column.size - column0;
  const int row_mask = (1 << tiles.rows_log) - 1, column_mask = (1 << tiles.columns_log) - 1;
  const int flat_log = tiles.rows_log + tiles.columns_log;

  for (int pass = 0; pass < kDepth; ++pass) {
    const int64_t d0 = (int64_t{blockIdx.y} * kDepth + pass) << tiles.depth_log;
    const int64_t depths = min(tiles.depth.size - d0, int64_t{1} << tiles.depth_log);
    for (int j = 0; j < kPerThread; ++j) {
      const int e = static_cast<int>(threadIdx.x) + j * kThreads;
      const int r = e & row_mask, c = e >> tiles.rows_log & column_mask, d = e >> flat_log;
      if (d < depths && r < rows && c < columns)
        tile[tiles.at((d << tiles.rows_log) + r, c)] =
            x[(d0 + d) * tiles.depth.in + c * tiles.column.in + r];
    }
    __syncthreads();
    for (int j = 0; j < kPerThread; ++j) {
      const int e = static_cast<int>(threadIdx.x) + j * kThreads;
      const int c = e & column_mask, r = e >> tiles.columns_log & row_mask, d = e >> flat_log;
      if (d < depths && r < rows && c < columns)
        y[(d0 + d) * tiles.depth.out + r * tiles.row.out + c] =
            tile[tiles.at((d << tiles.rows_log) + r, c)];
    }
    __syncthreads();  // the next tile overwrites this one
  }
}

// The exponent of the smallest power of two that is at least n, at most `limit`.
static int log2_up(int64_t n, int limit) {
  int log = 0;
  while (log < limit && int64_t{1} << log < n) ++log;
  return log;
}

// Requires that the innermost axis of y is not that of x.
template <class Word>
static void copy_tiles(const Axes& axes, const void* x, void* y) {
  constexpr int kLog = 10, kSquare = kLog / 2;
  static_assert(1 << kLog == kTileElements);
  Tiles tiles{};
  tiles.column = axes.axis[axes.rank - 1];
  int row = 0, depth = -1, others = 0;
  while (axes.axis[row].in != 1) ++row;
  tiles.row = axes.axis[row];
  for (int i = 0; i < axes.rank - 1; ++i)
    if (i != row && (depth < 0 || axes.axis[i].size > axes.axis[depth].size)) depth = i;
  tiles.depth = depth < 0 ? Axis{1, 0, 0} : axes.axis[depth];
  for (Axis& other : tiles.other) other = {1, 0, 0};
  for (int i = 0; i < axes.rank - 1; ++i)
    if (i != row && i != depth) tiles.other[others++] = axes.axis[i];

  // Square; longer along one axis where the other is short.
  const int columns_log = log2_up(tiles.column.size, kSquare);
  tiles.rows_log = log2_up(tiles.row.size, kLog - columns_log);
  tiles.columns_log = log2_up(tiles.column.size, kLog - tiles.rows_log);
  tiles.depth_log = kLog - tiles.rows_log - tiles.columns_log;
  tiles.row_tiles = grid_size(ceil_div(tiles.row.size, int64_t{1} << tiles.rows_log));
  tiles.column_tiles = grid_size(ceil_div(tiles.column.size, int64_t{1} << tiles.columns_log));

  // 128 bytes are one turn around the banks; a request of 8-byte words takes two turns. Lanes along
  // x's axis must meet all banks: short rows shift by a bank a turn, long ones each by the columns
  // that lanes read of it.
  constexpr int kUnit = sizeof(Word) == 2 ? 2 : 1;  // elements of a bank
  constexpr int kTurn = sizeof(Word) == 8 ? 4 : sizeof(Word) == 4 ? 5 : 6;
  constexpr int kLanes = kTurn < 5 ? kTurn : 5;
  tiles.skew_log = max(kTurn - tiles.columns_log, 0);
  tiles.skew = tiles.skew_log > 0 ? kUnit : kUnit << max(kLanes - tiles.rows_log, 0);

  int64_t blocks = int64_t{tiles.row_tiles} * tiles.column_tiles;
  for (const Axis& other : tiles.other) blocks *= other.size;
  // A grid has at most 65535 rows.
  constexpr int64_t kMostGroups = 65535;
  const int64_t of_group = int64_t{kDepth} << tiles.depth_log;
  for (int64_t first = 0; first < tiles.depth.size; first += kMostGroups * of_group) {
    Tiles part = tiles;
    part.depth.size = min(tiles.depth.size - first, kMostGroups * of_group);
    const int64_t groups = ceil_div(part.depth.size, of_group);
    launch(permute_tiles_kernel<Word>, dim3(grid_size(blocks), static_cast<unsigned>(groups)),
           kThreads, 0, part, static_cast<const Word*>(x) + first * tiles.depth.in,
           static_cast<Word*>(y) + first * tiles.depth.out);
  }
}

template <class T>
void permute_fprop_copy(const PermuteArgs<T>& args) {
  for (const int64_t size : args.size)
    if (size == 0) return;
  const Axes axes(args);
  using Word = std::conditional_t<sizeof(T) == 8, unsigned long long,
                                  std::conditional_t<sizeof(T) == 4, unsigned, unsigned short>>;
  if (axes.axis[axes.rank - 1].in != 1) return copy_tiles<Word>(axes, args.x, args.result);
  bool wide = is_wide(args.x, args.result) && axes.axis[axes.rank - 1].size % kWide<T> == 0;
  for (int i = 0; i < axes.rank - 1; ++i) wide &= axes.axis[i].in % kWide<T> == 0;
  if (wide)
    copy_rows<uint4>(axes, args.x, args.result, 1, kWide<T>);
  else
    copy_rows<Word>(axes, args.x, args.result, 1, 1);
}

LAMINA_CUDA_INSTANTIATE(permute_fprop_copy, PermuteArgs)

}  // namespace lamina::cuda
