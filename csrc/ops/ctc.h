// Connectionist temporal classification (Graves et al. 2006, section 4.1).
#pragma once

#include <cstdint>

#include "ops/scalar.h"

namespace lamina::ops {

// Of sequence i: log_p [0, lengths[i]) of [steps][n][c], and labels [ends[i - 1], ends[i]), none of
// which is `blank`. Its states are the labels with blanks between, before and after.
// fprop  loss[i] = -log of the sum, over all paths that collapse to the labels, of the product of
//        p[step][path[step]]; infinite if there is none, 0 for no steps and no labels
// dgrad  grad_y[i] times the gradient of log_p [steps][n][c]: minus the probability of the label at
//        the step, given the labels; 0 where grad_y[i] is 0
// All of it in double.
template <class T>
struct CtcArgs {
  int64_t steps = 0, n = 0, c = 0, blank = 0;
  const T* log_p = nullptr;
  const int64_t* labels = nullptr;
  const int64_t* ends = nullptr;
  const int64_t* lengths = nullptr;
  const T* grad_y = nullptr;  // dgrad
  T* result = nullptr;
};

// The states of one sequence.
template <class T>
struct CtcStates {
  const int64_t* labels;
  int64_t count, blank;

  constexpr CtcStates(const CtcArgs<T>& args, int64_t i) : blank(args.blank) {
    const int64_t begin = i == 0 ? 0 : args.ends[i - 1];
    labels = args.labels + begin, count = 2 * (args.ends[i] - begin) + 1;
  }
  constexpr int64_t label(int64_t state) const {
    return (state & 1) != 0 ? labels[state / 2] : blank;
  }
  // Whether a path may go there from two states before: unless that merges two equal labels.
  constexpr bool skips(int64_t state) const {
    return (state & 1) != 0 && state >= 3 && labels[state / 2] != labels[state / 2 - 1];
  }
};

}  // namespace lamina::ops
