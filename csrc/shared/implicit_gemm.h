// What the CPU's implicit GEMM packs for all tasks of a convolution: its filters or, where the
// output positions are few, its unrolled input.
#pragma once

#include "ops/conv.h"

namespace lamina {

// `lines` rows or columns of a factor in bfloat16 pieces (cpu/gemm_split.h), as elements of 4
// bytes: tiles of 32 lines by 32 of the depth, and two magnitudes for every 256 of it.
constexpr int64_t split_elements(int64_t lines, int64_t depth, int64_t pieces) {
  return (lines + 31) / 32 * ((depth + 31) / 32 * pieces * 512 + (depth + 255) / 256 * 2);
}

struct ImplicitGemm {
  int64_t positions, depth;  // of the product: outputs of all images, inputs x taps of a group
  bool pack_input;

  constexpr explicit ImplicitGemm(const ops::ConvShape& s)
      : positions(s.n * s.out_size()),
        depth(s.c_per_group() * s.kernel_size()),
        pack_input(positions < kFew && positions < 2 * s.k_per_group()) {}

  // Whole vectors of positions, or whole panels of up to 8 filters.
  constexpr int64_t workspace_elements(const ops::ConvShape& s) const {
    return s.groups * depth * (pack_input ? positions + 15 : s.k_per_group() + 7);
  }

  constexpr int64_t split_elements(const ops::ConvShape& s, int64_t pieces) const {
    return s.groups *
           lamina::split_elements(pack_input ? positions : s.k_per_group(), depth, pieces);
  }

  static constexpr int64_t kFew = 768;
};

// wgrad: a task computes the weights of a block of input and of output channels from a part of the
// positions, in bands of output rows. Positions are cut where weights are few.
struct ImplicitGemmGradient {
  int64_t channels, outputs;     // of a block: inputs and outputs of a group
  int64_t rows, columns, bands;  // of a band, in output positions; bands of all images
  int64_t parts;                 // of the bands

  [[gnu::always_inline]] constexpr explicit ImplicitGemmGradient(const ops::ConvShape& s)
      : channels(eights(kBlockRows / at_least_one(s.kernel_size()))),
        outputs(at_least_one(s.k_per_group())),
        rows(1),
        columns(at_least_one(s.out[2])),
        parts(1) {
    outputs = ceil(ceil(outputs, ceil(outputs, kBlockOutputs)), 16) * 16;
    if (columns > 2 * kBandPositions) columns = kBandPositions;
    if (columns < kBandPositions) rows = kBandPositions / columns;
    if (rows > s.out[1]) rows = at_least_one(s.out[1]);
    bands = s.n * s.out[0] * ceil(s.out[1], rows) * ceil(s.out[2], columns);
    const int64_t fewest = eights(kLeastRows / at_least_one(s.kernel_size()));
    if (channels > s.c_per_group()) channels = at_least_one(s.c_per_group());
    // Blocks of fewer channels repeat the packing of grad_y, parts of the positions do not.
    int64_t most = s.n * s.out_size() / kLeastPositions;
    if (most > bands) most = bands;
    most = at_least_one(most);
    while (tasks(s) * most < kTasks && channels > fewest) channels = eights(channels / 2);
    // Blocks of fewer outputs pad the same inputs.
    while (tasks(s) * most < kFewTasks && outputs > kLeastOutputs)
      outputs = ceil(outputs / 2, kLeastOutputs) * kLeastOutputs;
    if (tasks(s) > 0 && tasks(s) < kTasks) parts = ceil(kTasks, tasks(s));
    if (parts > most) parts = most;
  }
  constexpr int64_t workspace_elements(const ops::ConvShape& s) const {
    return parts > 1 ? parts * s.weight_elems() : 0;
  }

 private:
  static constexpr int64_t kBlockRows = 288, kLeastRows = 64;  // channels times taps
  static constexpr int64_t kBlockOutputs = 192, kBandPositions = 256, kLeastPositions = 1024;
  static constexpr int64_t kTasks = 16, kFewTasks = 4, kLeastOutputs = 48;

  static constexpr int64_t ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
  static constexpr int64_t eights(int64_t count) { return ceil(at_least_one(count), 8) * 8; }
  static constexpr int64_t at_least_one(int64_t count) { return count > 1 ? count : 1; }
  constexpr int64_t tasks(const ops::ConvShape& s) const {
    return s.groups * ceil(s.c_per_group(), channels) * ceil(s.k_per_group(), outputs);
  }
};

// wgrad in bfloat16 pieces: the positions are cut into parts where too few weights would leave
// processors idle.
struct SplitGradient {
  int64_t parts, positions;  // of a part, the last one may be shorter

  constexpr explicit SplitGradient(const ops::ConvShape& s) : parts(1) {
    constexpr int64_t kTasks = 16, kBlockWeights = 256 * 96, kLeast = 1024;
    const int64_t all = s.n * s.out_size();
    const int64_t tasks = (s.weight_elems() + kBlockWeights - 1) / kBlockWeights;
    if (tasks > 0 && tasks < kTasks) parts = (kTasks + tasks - 1) / tasks;
    if (parts > all / kLeast) parts = all / kLeast > 0 ? all / kLeast : 1;
    positions = (all + parts - 1) / parts;
  }
  constexpr int64_t workspace_elements(const ops::ConvShape& s) const {
    return parts > 1 ? parts * s.weight_elems() : 0;
  }
};

}  // namespace lamina
