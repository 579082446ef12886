// The product of cpu/gemm.h on the tile unit of AMX (cpu/amx.h): float32 as sums of bfloat16.
//
//   x = h + m + l, each the bfloat16 nearest to what is left of x: three pieces hold all 24 bits
//   a b = sum of a_i b_j over i + j < pieces: 6 products of 3 pieces, 3 of 2, 1 of 1
//
// Sources       Henry, Tang & Heinecke 2019 ("Leveraging the bfloat16 artificial intelligence
//               datatype for higher-precision computations").
// Method        blocks of 32x32 sums stay in four tiles over a k block; operands come from the
//               same functions as those of gemm_blocks and are split and laid out as tiles, once
//               for all tasks where the caller has memory for that.
// Partitioning  one task per block of rows and columns of c, as the shape says.
// Numerics      What the pieces leave out of a product is at most 2^-23 (three), 3 2^-16 (two) or
//               2^-7 (one) of it. The unit sums runs of 32 products and adds them up in float32;
//               sums of k blocks are added as gemm_blocks does. The unit takes subnormal numbers
//               for zero and cannot split Inf, NaN or the largest numbers: every task knows the
//               largest and the smallest magnitude that it has met, and where pieces or products
//               of these may get lost it computes its block with the FMA kernel instead.
// Floor         the unit's 512 multiply-adds a cycle, six, three or one of them a product; below
//               some 200 rows of a the splitting of b costs more.
#pragma once

#include "cpu/amx.h"
#include "cpu/gemm.h"
#include "ops/tiles.h"

LAMINA_CPU_NAMESPACE_BEGIN

typedef uint32_t Bits __attribute__((vector_size(LAMINA_VECTOR_BYTES)));  // as many as floats

inline constexpr int64_t kSplitSide = 32, kSplitDepth = 32;  // of two tiles; k of a tile
inline constexpr int64_t kTileWords = kTileBytes / 4;

// Magnitudes of what was split, as bits: these are ordered as the numbers are. Zeros do not count.
struct Magnitudes {
  uint32_t largest = 0, least = ~0u;

  void merge(const Magnitudes& other) {
    largest = max_of(largest, other.largest), least = min_of(least, other.least);
  }
  float number(uint32_t bits) const {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
  }
  bool any() const { return largest > 0; }
};

// Whether no piece and no product of pieces, or sum of these, gets lost.
static bool keeps_all(const Magnitudes& a, const Magnitudes& b) {
  constexpr uint32_t kMost = (127u + 100) << 23, kLeast = (127u - 100) << 23;  // 2^100, 2^-100
  if (a.largest > kMost || b.largest > kMost) return false;
  if (!a.any() || !b.any()) return true;
  if (a.least < kLeast || b.least < kLeast) return false;
  return static_cast<double>(a.number(a.largest)) * b.number(b.largest) <= 0x1p96 &&
         static_cast<double>(a.number(a.least)) * b.number(b.least) >= 0x1p-96;
}

// Magnitudes while vectors come by.
class MagnitudeVectors {
 public:
  LAMINA_INLINE void see(Vec<float> x) {
    const Bits magnitude = reinterpret_cast<Bits>(x) & 0x7fffffff;
    largest_ = magnitude > largest_ ? magnitude : largest_;
    const Bits beyond = magnitude - 1;  // zero becomes the largest
    least_ = beyond < least_ ? beyond : least_;
  }
  void merge_into(Magnitudes& all) const {
    for (int i = 0; i < kLanes<float>; ++i)
      all.merge({largest_[i], least_[i] == ~0u ? ~0u : least_[i] + 1});
  }

 private:
  Bits largest_ = {}, least_ = ~Bits{};
};

// The pieces of two lines, those of `even` in the lower halves, the i-th at words[i * step].
template <int Pieces>
LAMINA_INLINE void split_pair(Vec<float> even, Vec<float> odd, uint32_t* words, int64_t step,
                              MagnitudeVectors& seen) {
  seen.see(even), seen.see(odd);
#pragma GCC unroll 3
  for (int i = 0; i < Pieces; ++i) {
    const auto nearest = [](Vec<float> x) {  // bfloat16, ties to even, in the upper half
      const Bits bits = reinterpret_cast<Bits>(x);
      return (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
    };
    const Bits first = nearest(even), second = nearest(odd), both = (first >> 16) | second;
    __builtin_memcpy(words + i * step, &both, sizeof both);
    even -= reinterpret_cast<Vec<float>>(first), odd -= reinterpret_cast<Vec<float>>(second);
  }
}

// Two lines 2 q and 2 q + 1 of [depth] lines, zero beyond.
template <int Pieces>
LAMINA_INLINE void split_lines(const float* lines, int64_t step, int64_t q, int64_t depth,
                               uint32_t* words, int64_t words_step, MagnitudeVectors& seen) {
  const float* line = lines + 2 * q * step;
  split_pair<Pieces>(2 * q < depth ? load(line) : Vec<float>{},
                     2 * q + 1 < depth ? load(line + step) : Vec<float>{}, words, words_step, seen);
}

// An operand's 32 lines over `depth` of k, split: [k / 32][piece][2 tiles].
//
// Right factor: columns `first` to first + 32 of the panels that a function `columns` packed for
// `count` columns.
template <int Pieces>
static void split_columns(const float* panels, int64_t first, int64_t count, int64_t depth,
                          uint32_t* words, Magnitudes& all) {
  constexpr int64_t kCols = GemmTile<float>::kCols;
  MagnitudeVectors seen;
  const int64_t whole = whole_vectors<float>(count), steps = ceil_div(depth, kSplitDepth);
  for (int64_t j = 0; j < kSplitSide; j += kLanes<float>) {
    const int64_t column = first + j, panel = column / kCols * kCols;
    const int64_t width = min_of(kCols, whole - panel);
    const float* lines = panels + panel * depth + column - panel;
    const int64_t some = column < whole ? depth : 0;
    uint32_t* to = words + j / 16 * kTileWords + j % 16;
    for (int64_t step = 0; step < steps; ++step, to += Pieces * 2 * kTileWords)
      for (int64_t q = 0; q < 16; ++q)
        split_lines<Pieces>(lines, width, step * 16 + q, some, to + q * 16, 2 * kTileWords, seen);
  }
  seen.merge_into(all);
}

// Left factor: from lines [depth][32], every tile transposed as pairs of k.
template <int Pieces>
static void split_rows(const float* lines, int64_t depth, uint32_t* words, Magnitudes& all) {
  constexpr int kSide = kLanes<float>;
  MagnitudeVectors seen;
  alignas(64) uint32_t pairs[Pieces][16][16];
  for (int64_t step = 0; step * kSplitDepth < depth; ++step)
    for (int64_t tile = 0; tile < 2; ++tile) {
      for (int64_t q = 0; q < 16; ++q)
        for (int64_t i = 0; i < 16; i += kSide)
          split_lines<Pieces>(lines + tile * 16 + i, kSplitSide, step * 16 + q, depth,
                              &pairs[0][q][i], kTileWords, seen);
      for (int64_t piece = 0; piece < Pieces; ++piece) {
        uint32_t* to = words + ((step * Pieces + piece) * 2 + tile) * kTileWords;
        for (int64_t i = 0; i < 16; i += kSide)
          for (int64_t q = 0; q < 16; q += kSide) {
            Vec<float> square[kSide];
#pragma GCC unroll 16
            for (int line = 0; line < kSide; ++line)
              __builtin_memcpy(&square[line], &pairs[piece][q + line][i], sizeof square[line]);
            transpose<float>(square);
#pragma GCC unroll 16
            for (int line = 0; line < kSide; ++line)
              __builtin_memcpy(to + (i + line) * 16 + q, &square[line], sizeof square[line]);
          }
      }
    }
  seen.merge_into(all);
}

// c[32][32], rows `pitch` apart, = a block of 32 rows times a block of 32 columns. Small products
// come first; neighbours share an operand.
template <int Pieces, class Unit>
[[gnu::noinline]] static void tile_product(Unit& unit, int64_t steps, const uint32_t* a,
                                           const uint32_t* b, float* c, int64_t pitch) {
  constexpr int64_t kRow = 64, kPiece = 2 * kTileWords;
  const auto left = [&](int piece) {
    unit.template load<4>(a + piece * kPiece, kRow);
    unit.template load<5>(a + piece * kPiece + kTileWords, kRow);
  };
  const auto right = [&](int piece) {
    unit.template load<6>(b + piece * kPiece, kRow);
    unit.template load<7>(b + piece * kPiece + kTileWords, kRow);
  };
  const auto multiply = [&] {
    unit.template multiply_add<0, 4, 6>();
    unit.template multiply_add<1, 4, 7>();
    unit.template multiply_add<2, 5, 6>();
    unit.template multiply_add<3, 5, 7>();
  };
  unit.template zero<0>();
  unit.template zero<1>();
  unit.template zero<2>();
  unit.template zero<3>();
  for (int64_t step = 0; step < steps; ++step, a += Pieces * kPiece, b += Pieces * kPiece) {
    right(0);
    if constexpr (Pieces == 3) {
      left(2), multiply();
      left(1), multiply();
      right(1), multiply();
      left(0), multiply();
      right(2), multiply();
      right(0), multiply();
    } else if constexpr (Pieces == 2) {
      left(1), multiply();
      left(0), multiply();
      right(1), multiply();
    } else {
      left(0), multiply();
    }
  }
  unit.template store<0>(c, pitch * 4);
  unit.template store<1>(c + 16, pitch * 4);
  unit.template store<2>(c + 16 * pitch, pitch * 4);
  unit.template store<3>(c + 16 * pitch + 16, pitch * 4);
}

// Memory for an operand that is split once for all tasks.
struct SplitShare {
  void* memory = nullptr;  // shared/implicit_gemm.h says how much
  bool rows = false;       // the left factor, else the right one
};

// Rows and columns of a task; few tasks are cut further, an operand that is shared first.
struct SplitBlock {
  int64_t rows, cols;

  SplitBlock(int64_t batch, int64_t m, int64_t n, bool rows_shared, bool cols_shared) {
    constexpr int64_t kFewTasks = 16, kLeast = 2 * kSplitSide;
    const auto even = [](int64_t count, int64_t most) {
      const int64_t blocks = max_of<int64_t>(ceil_div(count, most), 1);
      return max_of<int64_t>(ceil_div(ceil_div(count, blocks), kSplitSide), 1) * kSplitSide;
    };
    rows = even(m, rows_shared ? 512 : 256), cols = even(n, rows_shared ? 192 : 384);
    while (batch * ceil_div(m, rows) * ceil_div(n, cols) < kFewTasks) {
      const bool cut_rows = cols <= kLeast || cols_shared || (!rows_shared && rows > cols);
      int64_t& size = cut_rows && rows > kLeast ? rows : cols;
      if (size <= kLeast) break;
      size = even(size, ceil_div(size, 2));
    }
  }
};

template <class Rows, class Columns>
class SplitProduct {
 public:
  SplitProduct(int64_t batch, int64_t m, int64_t n, int64_t k, const Rows& rows_of,
               const Columns& columns_of, const SplitShare& share)
      : batch_(batch),
        m_(m),
        n_(n),
        k_(k),
        rows_of_(rows_of),
        columns_of_(columns_of),
        share_(share),
        words_(static_cast<uint32_t*>(share.memory)) {}

  template <int Pieces, class Unit, class Store>
  void run(const Store& store_block) const {
    if (rows_shared()) split_all_rows<Pieces>();
    if (cols_shared()) split_all_columns<Pieces>();
    const SplitBlock block(batch_, m_, n_, rows_shared(), cols_shared());
    const int64_t blocks_m = ceil_div(m_, block.rows), blocks_n = ceil_div(n_, block.cols);
    parallel_for(batch_ * blocks_m * blocks_n, [&](int64_t task) {
      const int64_t index = task / (blocks_m * blocks_n);
      const int64_t i = task / blocks_n % blocks_m * block.rows, rows = min_of(block.rows, m_ - i);
      const int64_t j = task % blocks_n * block.cols, cols = min_of(block.cols, n_ - j);
      const int64_t width = ceil_div(cols, kSplitSide) * kSplitSide;
      Scratch<float> sums(ceil_div(rows, kSplitSide) * kSplitSide * width);
      if (multiply<Pieces, Unit>(index, i, rows, j, cols, sums.get()))
        return store_block(index, i, rows, j, cols, sums.get(), width);
      gemm_blocks<float>(
          1, rows, cols, k_,
          [&](int64_t, int64_t r, int64_t count, int64_t p, int64_t depth, float* panel) {
            return rows_of_(index, i + r, count, p, depth, panel);
          },
          [&](int64_t, int64_t q, int64_t count, int64_t p, int64_t depth, float* panels) {
            return columns_of_(index, j + q, count, p, depth, panels);
          },
          [&](int64_t, int64_t r, int64_t some, int64_t q, int64_t count, const float* block_sums,
              int64_t step) { store_block(index, i + r, some, j + q, count, block_sums, step); });
    });
  }

 private:
  static constexpr int64_t kDepth = GemmTile<float>::kBlockDepth;
  static constexpr int64_t kChunk = GemmTile<float>::kBlockCols;  // columns packed in one call

  template <int Pieces>
  static constexpr int64_t block_words(int64_t depth) {  // of 32 lines
    return ceil_div(depth, kSplitDepth) * Pieces * 2 * kTileWords;
  }
  bool rows_shared() const { return share_.memory && share_.rows; }
  bool cols_shared() const { return share_.memory && !share_.rows; }
  int64_t shared_blocks() const { return ceil_div(share_.rows ? m_ : n_, kSplitSide); }
  template <int Pieces>
  uint32_t* shared_words(int64_t index, int64_t line, int64_t p) const {
    return words_ + shared_blocks() * (index * block_words<Pieces>(k_) + block_words<Pieces>(p)) +
           line / kSplitSide * block_words<Pieces>(min_of(kDepth, k_ - p));
  }
  template <int Pieces>
  Magnitudes& shared_magnitudes(int64_t index, int64_t line, int64_t p) const {
    const int64_t runs = ceil_div(k_, kDepth), blocks = shared_blocks();
    return reinterpret_cast<Magnitudes*>(
        words_ +
        batch_ * blocks *
            block_words<Pieces>(k_))[(index * runs + p / kDepth) * blocks + line / kSplitSide];
  }

  template <int Pieces>
  void split_all_rows() const {
    const int64_t blocks = shared_blocks();
    parallel_for(batch_ * blocks, [&](int64_t task) {
      const int64_t index = task / blocks, i = task % blocks * kSplitSide;
      for (int64_t p = 0; p < k_; p += kDepth) {
        Magnitudes seen;
        row_block<Pieces>(index, i, p, shared_words<Pieces>(index, i, p), seen);
        shared_magnitudes<Pieces>(index, i, p) = seen;
      }
    });
  }
  template <int Pieces>
  void split_all_columns() const {
    const int64_t chunks = ceil_div(n_, kChunk), runs = ceil_div(k_, kDepth);
    parallel_for(batch_ * chunks * runs, [&](int64_t task) {
      const int64_t index = task / (chunks * runs), j = task / runs % chunks * kChunk;
      const int64_t p = task % runs * kDepth;
      Magnitudes seen;
      column_blocks<Pieces>(index, j, min_of(kChunk, n_ - j), p, shared_words<Pieces>(index, j, p),
                            seen);
      for (int64_t line = j; line < min_of(j + kChunk, n_); line += kSplitSide)
        shared_magnitudes<Pieces>(index, line, p) = seen;
    });
  }

  // Rows [i, i + 32) over the k block at p.
  template <int Pieces>
  void row_block(int64_t index, int64_t i, int64_t p, uint32_t* words, Magnitudes& seen) const {
    constexpr int64_t kRows = GemmTile<float>::kRows;
    const int64_t depth = min_of(kDepth, k_ - p);
    Scratch<float> lines(kSplitSide * depth), panel(kRows * depth);
    for (int64_t r = 0; r < kSplitSide; r += kRows) {
      const int64_t wide = min_of(kRows, kSplitSide - r), some = min_of(kRows, m_ - i - r);
      float* to = lines.get() + r;
      if (some <= 0) {
        for (int64_t q = 0; q < depth; ++q, to += kSplitSide)
          for (int64_t lane = 0; lane < wide; ++lane) to[lane] = 0;
        continue;
      }
      const float* from = rows_of_(index, i + r, some, p, depth, panel.get());
      for (int64_t q = 0; q < depth; ++q, from += kRows, to += kSplitSide)
        if (wide == kRows)
          __builtin_memcpy(to, from, sizeof(float) * kRows);
        else
          for (int64_t lane = 0; lane < wide; ++lane) to[lane] = from[lane];
    }
    split_rows<Pieces>(lines.get(), depth, words, seen);
  }

  // Columns [j, j + cols) over the k block at p, in blocks of 32.
  template <int Pieces>
  void column_blocks(int64_t index, int64_t j, int64_t cols, int64_t p, uint32_t* words,
                     Magnitudes& seen) const {
    const int64_t depth = min_of(kDepth, k_ - p);
    Scratch<float> panels(whole_vectors<float>(min_of(kChunk, cols)) * depth);
    for (int64_t done = 0; done < cols; done += kChunk) {
      const int64_t count = min_of(kChunk, cols - done);
      const float* from = columns_of_(index, j + done, count, p, depth, panels.get());
      for (int64_t first = 0; first < count;
           first += kSplitSide, words += block_words<Pieces>(depth))
        split_columns<Pieces>(from, first, count, depth, words, seen);
    }
  }

  // Whether the sums of a block hold.
  template <int Pieces, class Unit>
  bool multiply(int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols,
                float* sums) const {
    const int64_t width = ceil_div(cols, kSplitSide) * kSplitSide, most = min_of(kDepth, k_);
    Scratch<uint32_t> a_words(rows_shared() ? 0 : block_words<Pieces>(most));
    Scratch<uint32_t> b_words(cols_shared() ? 0 : width / kSplitSide * block_words<Pieces>(most));
    Magnitudes a_seen, b_seen;
    Unit unit;
    for (int64_t p = 0; p == 0 || p < k_; p += kDepth) {  // k == 0: the sum is zero
      const int64_t depth = min_of(kDepth, k_ - p), steps = ceil_div(depth, kSplitDepth);
      const uint32_t* b = cols_shared() ? shared_words<Pieces>(index, j, p) : b_words.get();
      if (cols_shared() && depth > 0)
        for (int64_t line = 0; line < cols; line += kSplitSide)
          b_seen.merge(shared_magnitudes<Pieces>(index, j + line, p));
      else if (depth > 0)
        column_blocks<Pieces>(index, j, cols, p, b_words.get(), b_seen);
      for (int64_t r = 0; r < rows; r += kSplitSide) {
        const uint32_t* a = rows_shared() ? shared_words<Pieces>(index, i + r, p) : a_words.get();
        if (rows_shared() && depth > 0)
          a_seen.merge(shared_magnitudes<Pieces>(index, i + r, p));
        else if (depth > 0)
          row_block<Pieces>(index, i + r, p, a_words.get(), a_seen);
        for (int64_t q = 0; q < width; q += kSplitSide) {
          const uint32_t* columns = b + q / kSplitSide * block_words<Pieces>(depth);
          float* place = sums + r * width + q;
          if (p == 0) {
            tile_product<Pieces>(unit, steps, a, columns, place, width);
            continue;
          }
          alignas(64) float block[kSplitSide][kSplitSide];
          tile_product<Pieces>(unit, steps, a, columns, block[0], kSplitSide);
          for (int64_t line = 0; line < kSplitSide; ++line, place += width)
            for (int64_t at = 0; at < kSplitSide; at += kLanes<float>)
              store(place + at, load(place + at) + load(block[line] + at));
        }
      }
    }
    return keeps_all(a_seen, b_seen);
  }

  int64_t batch_, m_, n_, k_;
  const Rows& rows_of_;
  const Columns& columns_of_;
  const SplitShare share_;
  uint32_t* words_;
};

// gemm_blocks with products of `pieces` bfloat16 pieces. The functions are those of gemm_blocks.
template <class Rows, class Columns, class Store>
static void split_blocks(int pieces, int64_t batch, int64_t m, int64_t n, int64_t k,
                         const Rows& rows_of, const Columns& columns_of, const Store& store_block,
                         const SplitShare& share = {}) {
  const SplitProduct<Rows, Columns> product(batch, m, n, k, rows_of, columns_of, share);
  const auto run = [&]<class Unit>(Unit*) {
    if (pieces == 3)
      product.template run<3, Unit>(store_block);
    else if (pieces == 2)
      product.template run<2, Unit>(store_block);
    else
      product.template run<1, Unit>(store_block);
  };
#if defined(__x86_64__) && defined(__AVX512F__)
  if (ops::tiles() == ops::Tiles::amx) return run(static_cast<AmxTiles*>(nullptr));
#endif
  run(static_cast<TileModel*>(nullptr));
}

LAMINA_CPU_NAMESPACE_END
