// The product of cpu/gemm.h on a unit for bfloat16 (ops/bf16_unit.h): float32 as sums of bfloat16.
//
//   a b = sum of a_i b_j over i + j < pieces: 6 products of 3 pieces, 3 of 2, 1 of 1
//
// Sources       Henry, Tang & Heinecke 2019 ("Leveraging the bfloat16 artificial intelligence
//               datatype for higher-precision computations").
// Method        blocks of 32x32 sums stay in four tiles over a k block, or 12 rows of one in vector
//               registers; operands come from the same functions as those of gemm_blocks, or lie
//               along k already, and are split and laid out as tiles (cpu/split_pieces.h), once
//               for all tasks where the caller has memory for that, or once for many calls.
// Partitioning  one task per block of rows and columns of c, as the shape says.
// Numerics      What the pieces leave out of a product is at most 2^-23 (three), 3 2^-16 (two) or
//               2^-7 (one) of it. Sums are float32: of runs of 32 products on tiles, of two on
//               vectors; sums of k blocks are added as gemm_blocks does. The units take subnormal
//               numbers for zero and cannot split Inf, NaN or the largest numbers: every task knows
//               the largest and the smallest magnitude that it has met, and where pieces or
//               products of these may get lost it computes its block with the FMA kernel instead.
// Floor         512 multiply-adds a cycle of tiles, six, three or one of them a product, or 64 of
//               vectors; few rows of a do not pay for the splitting of b: some 200 on tiles, 32 on
//               vectors.
#pragma once

#include "cpu/gemm.h"
#include "cpu/split_pieces.h"
#include "ops/bf16_unit.h"

LAMINA_CPU_NAMESPACE_BEGIN

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

// The first rows of a block of c = or += (add) its product; the others may be anything. Vectors
// fetch `ahead` meanwhile.
template <int Pieces, class Unit>
static void block_product(Unit& unit, int64_t, int64_t depth, const uint32_t* a, const uint32_t* b,
                          float* c, int64_t pitch, bool add, BlockAhead, BlockAhead) {
  const int64_t steps = ceil_div(depth, kSplitDepth);
  if (!add) return tile_product<Pieces>(unit, steps, a, b, c, pitch);
  alignas(64) float block[kSplitSide][kSplitSide];
  tile_product<Pieces>(unit, steps, a, b, block[0], kSplitSide);
  for (int64_t line = 0; line < kSplitSide; ++line, c += pitch)
    for (int64_t at = 0; at < kSplitSide; at += kLanes<float>)
      store(c + at, load(c + at) + load(block[line] + at));
}
#if defined(__x86_64__) && defined(__AVX512F__)
template <int Pieces>
LAMINA_INLINE void block_product(Bf16Vectors& unit, int64_t rows, int64_t depth, const uint32_t* a,
                                 const uint32_t* b, float* c, int64_t pitch, bool add,
                                 BlockAhead columns, BlockAhead others) {
  unit.multiply(rows, depth, a, b, c, pitch, add, columns, others);
}
#endif

// Memory for an operand that is split once for all tasks (shared/implicit_gemm.h says how much).
struct SplitMemory {
  void* words = nullptr;
  bool cuts = true;    // tasks are cut for it; not if another call would have to cut otherwise
  bool ready = false;  // split by an earlier call
};
struct SplitShare {
  SplitMemory rows, columns;  // of the left and of the right factor
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
    rows = even(m, rows_shared ? 512 : 256), cols = even(n, rows_shared   ? 192
                                                            : cols_shared ? 512
                                                                          : 384);
    while (batch * ceil_div(m, rows) * ceil_div(n, cols) < kFewTasks) {
      const bool cut_rows = cols <= kLeast || cols_shared || (!rows_shared && rows > cols);
      int64_t& size = cut_rows && rows > kLeast ? rows : cols;
      if (size <= kLeast) break;
      size = even(size, ceil_div(size, 2));
    }
  }
};

// Lines of a factor as they lie: element (line, k) at first[line * step + k] or, across,
// first[k * step + line]; zero beyond `depth` of k. None where they lie otherwise; so do the next
// `others`.
template <class T>
struct FactorLines {
  const T* first = nullptr;
  int64_t step = 0, depth = 0;
  bool across = false;
  int64_t others = int64_t{1} << 60;
};
template <class Unit, int Pieces, class Rows, class Columns, class RowLines, class ColumnLines>
class SplitProduct {
 public:
  SplitProduct(int64_t batch, int64_t m, int64_t n, int64_t k, const Rows& rows_of,
               const Columns& columns_of, const RowLines& row_lines,
               const ColumnLines& column_lines, const SplitShare& share)
      : batch_(batch),
        m_(m),
        n_(n),
        k_(k),
        rows_of_(rows_of),
        columns_of_(columns_of),
        row_lines_(row_lines),
        column_lines_(column_lines),
        rows_(share.rows, m, batch, k),
        columns_(share.columns, n, batch, k) {}

  template <class Store>
  void run(const Store& store_block) const {
    if (rows_.to_fill()) split_all_rows();
    if (columns_.to_fill()) split_all_columns();
    const SplitBlock block(batch_, m_, n_, rows_.cuts(), columns_.cuts());
    const int64_t blocks_m = ceil_div(m_, block.rows), blocks_n = ceil_div(n_, block.cols);
    parallel_for(batch_ * blocks_m * blocks_n, [&](int64_t task) {
      const int64_t index = task / (blocks_m * blocks_n);
      const int64_t i = task / blocks_n % blocks_m * block.rows, rows = min_of(block.rows, m_ - i);
      const int64_t j = task % blocks_n * block.cols, cols = min_of(block.cols, n_ - j);
      // The columns that this thread most likely splits next.
      const int64_t next = task + num_threads();
      const int64_t next_index = min_of(next / (blocks_m * blocks_n), batch_ - 1);
      if (multiply(index, i, rows, j, cols, next_index, next % blocks_n * block.cols, store_block))
        return;
      gemm_blocks<float>(
          1, rows, cols, k_,
          [&](int64_t, int64_t r, int64_t count, int64_t p, int64_t depth, float* panel) {
            return rows_of_(index, i + r, count, p, depth, panel);
          },
          [&](int64_t, int64_t q, int64_t count, int64_t p, int64_t depth, float* panels) {
            return columns_of_(index, j + q, count, p, depth, panels);
          },
          [&](int64_t, int64_t r, int64_t some, int64_t q, int64_t count, const float* sums,
              int64_t step) { store_block(index, i + r, some, j + q, count, sums, step); });
    });
  }

 private:
  static constexpr int64_t kDepth = GemmTile<float>::kBlockDepth;
  static constexpr int64_t kChunk = GemmTile<float>::kBlockCols;  // columns packed in one call,
  static constexpr int64_t kChunkDepth = 128;                     // within L2
  static constexpr int64_t kStepWords = Pieces * 2 * kTileWords;  // of 32 lines by 32 of k

  static constexpr int64_t block_words(int64_t depth) {  // of 32 lines
    return ceil_div(depth, kSplitDepth) * kStepWords;
  }

  // A factor that is split once, all of it: block of depth by block of depth.
  class Shared {
   public:
    Shared(const SplitMemory& memory, int64_t lines, int64_t batch, int64_t k)
        : memory_(memory), blocks_(ceil_div(lines, kSplitSide)), batch_(batch), k_(k) {}
    bool there() const { return memory_.words != nullptr; }
    bool to_fill() const { return there() && !memory_.ready; }
    bool cuts() const { return there() && memory_.cuts; }
    int64_t blocks() const { return blocks_; }
    uint32_t* words(int64_t index, int64_t line, int64_t p) const {
      return first() + blocks_ * (index * block_words(k_) + block_words(p)) +
             line / kSplitSide * block_words(min_of(kDepth, k_ - p));
    }
    Magnitudes& magnitudes(int64_t index, int64_t line, int64_t p) const {
      const int64_t runs = ceil_div(k_, kDepth);
      return reinterpret_cast<Magnitudes*>(
          first() + batch_ * blocks_ *
                        block_words(k_))[(index * runs + p / kDepth) * blocks_ + line / kSplitSide];
    }
    Magnitudes magnitudes(int64_t index, int64_t line, int64_t lines, int64_t p) const {
      Magnitudes all;
      for (const int64_t end = line + lines; line < end; line += kSplitSide)
        all.merge(magnitudes(index, line, p));
      return all;
    }

   private:
    uint32_t* first() const { return static_cast<uint32_t*>(memory_.words); }

    SplitMemory memory_;
    int64_t blocks_, batch_, k_;
  };

  void split_all_rows() const {
    const int64_t blocks = rows_.blocks();
    parallel_for(batch_ * blocks, [&](int64_t task) {
      const int64_t index = task / blocks, i = task % blocks * kSplitSide;
      for (int64_t p = 0; p < k_; p += kDepth) {
        Magnitudes seen;
        row_block(index, i, p, rows_.words(index, i, p), seen);
        rows_.magnitudes(index, i, p) = seen;
      }
    });
  }
  void split_all_columns() const {
    // Blocks of a task see their own magnitudes, with what is kept and without it.
    const int64_t chunk = columns_.cuts() ? kChunk : kSplitSide;
    const int64_t chunks = ceil_div(n_, chunk), runs = ceil_div(k_, kDepth);
    parallel_for(batch_ * chunks * runs, [&](int64_t task) {
      const int64_t index = task / (chunks * runs), j = task / runs % chunks * chunk;
      const int64_t p = task % runs * kDepth;
      Magnitudes seen;
      column_blocks(index, j, min_of(chunk, n_ - j), p, columns_.words(index, j, p), seen);
      for (int64_t line = j; line < min_of(j + chunk, n_); line += kSplitSide)
        columns_.magnitudes(index, line, p) = seen;
    });
  }

  // Rows [i, i + 32) over the k block at p.
  void row_block(int64_t index, int64_t i, int64_t p, uint32_t* words, Magnitudes& seen) const {
    constexpr int64_t kRows = GemmTile<float>::kRows;
    const int64_t depth = min_of(kDepth, k_ - p), count = min_of(kSplitSide, m_ - i);
    Scratch<float> lines(lines_memory(depth)), panel(kRows * depth);
    const FactorLines<float> as_they_lie = row_lines_(index, i, count, p, depth, lines.get());
    if (as_they_lie.first) return split_lines<true>(as_they_lie, count, depth, words, seen);
    for (int64_t r = 0; r < kSplitSide; r += kRows) {
      const int64_t wide = min_of(kRows, kSplitSide - r), some = min_of(kRows, count - r);
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
    split_lines<true>({lines.get(), kSplitSide, depth, true}, kSplitSide, depth, words, seen);
  }

  // Columns [j, j + cols) over the k block at p, in blocks of 32.
  void column_blocks(int64_t index, int64_t j, int64_t cols, int64_t p, uint32_t* words,
                     Magnitudes& seen) const {
    constexpr int64_t kCols = GemmTile<float>::kCols;
    const int64_t depth = min_of(kDepth, k_ - p), block = block_words(depth);
    Scratch<float> memory(
        max_of(whole_vectors<float>(min_of(kChunk, cols)) * kChunkDepth, lines_memory(depth)));
    for (int64_t done = 0; done < cols;) {
      int64_t count = min_of(kSplitSide, cols - done);
      const FactorLines<float> lines =
          column_lines_(index, j + done, count, p, depth, memory.get());
      if (lines.first) {
        split_lines<false>(lines, count, depth, words, seen);
        done += kSplitSide, words += block;
        continue;
      }
      count = min_of(min_of(kChunk, lines.others), cols - done);
      const int64_t whole = whole_vectors<float>(count);
      for (int64_t q = 0; q < depth; q += kChunkDepth) {
        const int64_t some = min_of(kChunkDepth, depth - q);
        const float* from = columns_of_(index, j + done, count, p + q, some, memory.get());
        uint32_t* to = words + q / kSplitDepth * kStepWords;
        for (int64_t column = 0; column < count; column += kSplitSide, to += block)
          for (int64_t tile = 0; tile < 2; ++tile) {
            LinesAcross across[kTileVectors];
            for (int i = 0; i < kTileVectors; ++i) {
              const int64_t place = column + tile * 16 + i * kLanes<float>;
              const int64_t panel = place / kCols * kCols;
              across[i] = {from + panel * some + place - panel, min_of(kCols, whole - panel),
                           place < whole ? some : 0, kLanes<float>};
            }
            split_across<Unit, Pieces, false>(across, some, to + tile * kTileWords, seen);
          }
      }
      done += count, words += ceil_div(count, kSplitSide) * block;
    }
  }

  // Up to 32 lines, `count` of them.
  template <bool Left>
  static void split_lines(FactorLines<float> lines, int64_t count, int64_t depth, uint32_t* words,
                          Magnitudes& seen) {
    for (int64_t tile = 0; tile < 2; ++tile, count -= 16, words += kTileWords) {
      if (!lines.across) {
        split_along<Unit, Pieces, Left>(lines.first + tile * 16 * lines.step, lines.step, count,
                                        lines.depth, depth, words, seen);
        continue;
      }
      LinesAcross across[kTileVectors];
      for (int i = 0; i < kTileVectors; ++i) {
        const int64_t line = i * kLanes<float>, some = count - line;
        across[i] = {lines.first + tile * 16 + line, lines.step, some > 0 ? lines.depth : 0, some};
      }
      split_across<Unit, Pieces, Left>(across, depth, words, seen);
    }
  }
  // Of 32 lines, and a vector beyond each.
  static int64_t lines_memory(int64_t depth) {
    return kSplitSide * (whole_vectors<float>(depth) + kLanes<float>);
  }

  // Computes and stores a block, unless something would get lost: then nothing is stored. Fetches
  // the columns of the next k block, or from next_j on, meanwhile.
  template <class Store>
  bool multiply(int64_t index, int64_t i, int64_t rows, int64_t j, int64_t cols, int64_t next_index,
                int64_t next_j, const Store& store_block) const {
    const int64_t width = ceil_div(cols, kSplitSide) * kSplitSide, most = min_of(kDepth, k_);
    // Rows that nobody has split yet may be the reason to store nothing.
    const bool at_once = rows_.there(), kept = k_ > kDepth || !at_once;
    Scratch<float> sums((kept ? ceil_div(rows, kSplitSide) : 1) * kSplitSide * width);
    Scratch<uint32_t> a_words(rows_.there() ? 0 : block_words(most));
    Scratch<uint32_t> b_words(columns_.there() ? 0 : width / kSplitSide * block_words(most));
    Magnitudes a_seen, b_seen;
    Unit unit;
    for (int64_t p = 0; p == 0 || p < k_; p += kDepth) {  // k == 0: the sum is zero
      const int64_t depth = min_of(kDepth, k_ - p);
      const bool last = p + depth >= k_;
      const uint32_t* b = columns_.there() ? columns_.words(index, j, p) : b_words.get();
      if (columns_.there() && depth > 0)
        b_seen.merge(columns_.magnitudes(index, j, cols, p));
      else if (depth > 0)
        column_blocks(index, j, cols, p, b_words.get(), b_seen);
      if (rows_.there() && depth > 0) a_seen.merge(rows_.magnitudes(index, i, rows, p));
      if (last && at_once && !keeps_all(a_seen, b_seen)) return false;
      for (int64_t r = 0; r < rows; r += kSplitSide) {
        const uint32_t* a = rows_.there() ? rows_.words(index, i + r, p) : a_words.get();
        if (!rows_.there() && depth > 0) row_block(index, i + r, p, a_words.get(), a_seen);
        const int64_t count = min_of(kSplitSide, rows - r);
        float* strip_sums = sums.get() + (kept ? r * width : 0);
        for (int64_t q = 0; q < width; q += kSplitSide) {
          const int64_t strip = r / kSplitSide, strips = ceil_div(rows, kSplitSide);
          const bool more = q + kSplitSide < width;
          const BlockAhead columns =
              columns_.there() && r == 0
                  ? words_ahead(columns_, index, more ? j + q + kSplitSide : j,
                                more ? p : p + kDepth, 0, 1)
              : columns_.there() ? BlockAhead{}
              : last             ? columns_ahead(next_index, next_j + q, 0, strip, strips)
                                 : columns_ahead(index, j + q, p + kDepth, strip, strips);
          const int64_t part = q / kSplitSide, parts = width / kSplitSide;
          const BlockAhead others = r + kSplitSide < rows
                                        ? rows_ahead(index, i + r + kSplitSide, p, part, parts)
                                    : last ? BlockAhead{}
                                           : rows_ahead(index, i, p + kDepth, part, parts);
          block_product<Pieces>(unit, count, depth, a, b + q / kSplitSide * block_words(depth),
                                strip_sums + q, width, p > 0, columns, others);
        }
        if (last && at_once) store_block(index, i + r, count, j, cols, strip_sums, width);
      }
    }
    if (at_once) return true;
    if (!keeps_all(a_seen, b_seen)) return false;
    store_block(index, i, rows, j, cols, sums.get(), width);
    return true;
  }

  // A part of up to 32 lines where these lie in memory already.
  static BlockAhead lines_ahead(FactorLines<float> lines, int64_t count, int64_t part,
                                int64_t parts) {
    if (!lines.first) return {};
    const int64_t run = lines.across ? 1 : ceil_div(lines.depth, kSplitDepth);
    const int64_t units = lines.across ? lines.depth : count, from = units * part / parts;
    return {lines.first + from * lines.step, (units * (part + 1) / parts - from) * run, run, run,
            lines.step - run * kSplitDepth};
  }
  // A part of 32 lines that were split before.
  BlockAhead words_ahead(const Shared& factor, int64_t index, int64_t line, int64_t p, int64_t part,
                         int64_t parts) const {
    constexpr int64_t kPair = 32;  // words
    if (!Unit::kRounds || p >= k_) return {};
    const int64_t pairs = block_words(min_of(kDepth, k_ - p)) / kPair, from = pairs * part / parts;
    const uint32_t* words = factor.words(index, line, p) + from * kPair;
    const int64_t count = pairs * (part + 1) / parts - from;
    return {reinterpret_cast<const float*>(words), count, count, count};
  }
  BlockAhead columns_ahead(int64_t index, int64_t j, int64_t p, int64_t part, int64_t parts) const {
    if (!Unit::kRounds || j >= n_) return {};
    const int64_t count = min_of(kSplitSide, n_ - j), depth = min_of(kDepth, k_ - p);
    return lines_ahead(column_lines_(index, j, count, p, depth, nullptr), count, part, parts);
  }
  BlockAhead rows_ahead(int64_t index, int64_t i, int64_t p, int64_t part, int64_t parts) const {
    if (rows_.there()) return words_ahead(rows_, index, i, p, part, parts);
    if (!Unit::kRounds) return {};
    const int64_t count = min_of(kSplitSide, m_ - i), depth = min_of(kDepth, k_ - p);
    return lines_ahead(row_lines_(index, i, count, p, depth, nullptr), count, part, parts);
  }

  int64_t batch_, m_, n_, k_;
  const Rows& rows_of_;
  const Columns& columns_of_;
  const RowLines& row_lines_;
  const ColumnLines& column_lines_;
  const Shared rows_, columns_;
};

// gemm_blocks with products of `pieces` bfloat16 pieces. `rows` and `columns` are the functions of
// gemm_blocks. The others may know up to 32 lines as they lie, or lay them out in `memory`, which
// has place for 32 lines of whole vectors and one more; null: only as they lie.
//   row_lines(batch, i, count, p, depth, memory)     -> a[i..][p..]
//   column_lines(batch, j, count, p, depth, memory)  -> b[p..][j..]
template <class Rows, class Columns, class RowLines, class ColumnLines, class Store>
static void split_blocks(int pieces, int64_t batch, int64_t m, int64_t n, int64_t k,
                         const Rows& rows_of, const Columns& columns_of, const RowLines& row_lines,
                         const ColumnLines& column_lines, const Store& store_block,
                         const SplitShare& share = {}) {
  const auto run = [&]<class Unit, int Pieces>() {
    SplitProduct<Unit, Pieces, Rows, Columns, RowLines, ColumnLines>(
        batch, m, n, k, rows_of, columns_of, row_lines, column_lines, share)
        .run(store_block);
  };
  const auto run_on = [&]<class Unit>() {
    if (pieces == 3)
      run.template operator()<Unit, 3>();
    else if (pieces == 2)
      run.template operator()<Unit, 2>();
    else
      run.template operator()<Unit, 1>();
  };
#if defined(__x86_64__) && defined(__AVX512F__)
  if (ops::bf16_unit() == ops::Bf16Unit::vectors) return run.template operator()<Bf16Vectors, 1>();
  if (ops::bf16_unit() == ops::Bf16Unit::tiles) return run_on.template operator()<AmxTiles>();
#endif
  run_on.template operator()<TileModel>();
}

LAMINA_CPU_NAMESPACE_END
