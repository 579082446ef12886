// What the ways of conv `direct` share: how weights and results are addressed, and the terms of a
// sum.
#pragma once

#include "core/threads.h"
#include "cpu/activate.h"
#include "cpu/phase_plane.h"
#include "cpu/scratch.h"
#include "shared/conv_phase.h"
#include "shared/direct_blocks.h"

LAMINA_CPU_NAMESPACE_BEGIN

inline constexpr int64_t kBlockWeights = 1 << 16;  // few weights
inline constexpr int64_t kFewUnits = 16;           // fewer are cut further
inline constexpr int64_t kRunTerms = 256;          // products summed in registers at a stretch
inline constexpr int64_t kTaskTerms = 1 << 18;     // products that are worth a task

// A product of a sum: an input channel and a tap.
struct Term {
  int64_t x, weight;  // from a position of the copy, from the first weight of an output channel
};

// What distinguishes fprop from a phase of dgrad: how weights and results are addressed.
template <class T>
struct DirectPass {
  ops::ConvShape shape;
  const T* x;  // [n][c][in]
  const T* weight;
  const T* bias;  // [k] or null
  ops::Epilogue<T> epilogue;
  T* y;
  int64_t weight_group;  // steps in the weights: group, output channel, input channel
  int64_t weight_lane, weight_channel;
  int64_t kernel[3];     // extents of the filter
  int64_t tap_first[3];  // tap t of the shape is tap_first + t * tap_step of the filter
  int64_t tap_step[3];
  int64_t y_size[3];  // extents of a result plane
  int64_t y_step[3];  // position o of the shape is y_offset + o * y_step
  int64_t y_offset[3];

  // In the filter, of tap r of the shape.
  LAMINA_INLINE int64_t weight_index(const int64_t (&r)[3]) const {
    int64_t index = 0;
    for (int axis = 0; axis < 3; ++axis)
      index = index * kernel[axis] + tap_first[axis] + r[axis] * tap_step[axis];
    return index;
  }
};

// tile[Rows][Vectors] = the sums of a run of terms, or these and what the tile holds.
template <class T, int Rows, int Vectors>
LAMINA_INLINE void store_sums(const Vec<T> (&sum)[Rows][Vectors], T* tile, bool add) {
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) {
      T* place = tile + (i * Vectors + j) * kLanes<T>;
      store(place, add ? load(place) + sum[i][j] : sum[i][j]);
    }
}

// The first `count` of a vector of sums into y and positions `step` apart behind it.
template <class T>
LAMINA_INLINE void store_epilogue(const DirectPass<T>& pass, Vec<T> sums, T* y, int64_t step,
                                  int64_t count) {
  count = min_of<int64_t>(count, kLanes<T>);
  if (const T* residual = pass.epilogue.residual) {
    T lanes[kLanes<T>] = {};
    for (int64_t j = 0; j < count; ++j) lanes[j] = residual[y - pass.y + j * step];
    sums += load(lanes);
  }
  sums = activate(pass.epilogue, sums);
  if (step == 1) return store_first(y, count, sums);
  T lanes[kLanes<T>];
  store(lanes, sums);
  for (int64_t j = 0; j < count; ++j) y[j * step] = lanes[j];
}

// Stores tile[count][width] of up to `outputs` output channels; y is that of the first.
template <class T>
[[gnu::noinline]] static void store_outputs(const DirectPass<T>& pass, const T* tile, int64_t width,
                                            int64_t count, const T* bias, int64_t outputs,
                                            int64_t y_plane, T* y) {
  const int64_t step = pass.y_step[2];
  const bool rows = step == 1 && !pass.epilogue.residual;
  for (int64_t j = 0; j < min_of(outputs, width); j += kLanes<T>)
    for (int64_t i = 0; i < count; i += kLanes<T>) {
      Vec<T> square[kLanes<T>];
#pragma GCC unroll 16
      for (int64_t p = 0; p < kLanes<T>; ++p)
        square[p] = i + p < count ? load(tile + (i + p) * width + j) : Vec<T>{};
      transpose<T>(square);
      const int64_t some = min_of<int64_t>(outputs - j, kLanes<T>);
      T* to = y + j * y_plane + i * step;
      for (int64_t k = 0; k < some; ++k, to += y_plane) {
        const Vec<T> sums = square[k] + broadcast(bias ? bias[j + k] : T(0));
        if (rows)
          store_first(to, count - i, activate(pass.epilogue, sums));
        else
          store_epilogue(pass, sums, to, step, count - i);
      }
    }
}

LAMINA_CPU_NAMESPACE_END
