// Times the algorithms that `auto` may take, on the arrays of the call that wants to know.
#pragma once

#include <chrono>
#include <new>

#include "ops/conv_measured.h"
#include "ops/conv_plan.h"
#include "ops/epilogue_call.h"

namespace lamina::bindings {

// Least seconds of some runs; `best` is the least of another candidate: what takes four times as
// long in its first run gets no second one.
template <class T>
double measured_seconds(const ops::ConvCandidate& candidate, ops::ConvArgs<T> args,
                        int64_t result_elems, double best) {
  constexpr double kEnough = 0.02;
  constexpr int kMostRuns = 20, kLeastRuns = 3;
  const ops::CallWorkspace workspace(*candidate.kernel, candidate.workspace_bytes);
  args.workspace = static_cast<T*>(workspace.get());
  const auto run = [&] {
    const auto start = std::chrono::steady_clock::now();
    ops::call_with_epilogue(*candidate.kernel, args, args.result, result_elems);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const double first = run();  // also the warm-up
  if (first > 4 * best) return first;
  double least = run(), total = least;
  for (int runs = 1; runs < kMostRuns && (runs < kLeastRuns || total < kEnough); ++runs) {
    const double seconds = run();
    total += seconds;
    if (seconds < least) least = seconds;
  }
  return least;
}

// Whether the plan just made should be replaced by a measured one. GPUs would need their own clock.
inline bool wants_measuring(const std::string& algo) {
  return ops::autotuning() && algo == "auto" && ops::last_plan().backend == "cpu" &&
         ops::last_plan().chosen_by != ops::kChosenByTime;
}

template <class T>
ops::ConvTimes measure_conv(const std::string& op, ops::ConvPass pass, const ops::ConvArgs<T>& args,
                            int64_t workspace_limit, int64_t result_elems) {
  ops::ConvTimes times;
  double best = 1e300;
  const std::vector<ops::ConvCandidate> candidates =
      ops::conv_candidates(op.c_str(), pass, args.shape, workspace_limit, sizeof(T));
  if (candidates.size() == 1) return {{candidates[0].kernel->algo, 0.0}};
  for (const ops::ConvCandidate& candidate : candidates) {
    try {
      const double seconds = measured_seconds(candidate, args, result_elems, best);
      times.emplace_back(candidate.kernel->algo, seconds);
      best = seconds < best ? seconds : best;
    } catch (const std::bad_alloc&) {  // its workspace does not fit: it is not a candidate here
    }
  }
  return times;
}

}  // namespace lamina::bindings
