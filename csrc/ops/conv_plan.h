// Which convolution algorithm runs: legality, workspace and cost of each, and the choice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ops/conv.h"
#include "ops/registry.h"

namespace lamina::ops {

const char* pass_name(ConvPass pass);

// The packed filters of any call with this weight, number of groups and form, where a kernel has
// several; of no elements where keeping them does not pay.
struct PackedForm {
  int64_t elements = 0;
  int form = 0;
};

// What the choice knows of an algorithm.
struct ConvRule {
  const char* algo;
  std::string (*refusal)(ConvPass, const ConvShape&);  // see conv_refusal
  int64_t (*workspace_elements)(ConvPass, const ConvShape&);
  double (*cost)(ConvPass, const ConvShape&);  // see conv_cost
  bool float_workspace = false;                // of float also for 16-bit operands
  const char* imprecise = nullptr;             // why "auto" passes it over above `enough`
  bool optional_workspace = false;             // runs without it too, slower, in another order
  double (*tf32_cost)(ConvPass, const ConvShape&) = nullptr;  // below full precision, if another
  Float32Precision enough = Float32Precision::high;           // medium: by name, too
  bool float32_only = false;
  // Of all filters as the kernel packs them; null: never kept.
  PackedForm (*packed)(ConvPass, const ConvShape&) = nullptr;
};
// Those of conv_plan_cpu.cpp with conv_plan_tiles.cpp, of conv_plan_bf16.cpp and of
// conv_plan_cuda.cpp; null if unknown.
const ConvRule* cpu_conv_rule(const std::string& algo);
const ConvRule* bf16_conv_rule(const std::string& algo);
const ConvRule* cuda_conv_rule(const std::string& algo);

// What the tiled algorithms ask of a shape, on every backend.
std::string needs_winograd(ConvPass pass, const ConvShape& shape);
std::string needs_fft(ConvPass pass, const ConvShape& shape);
// The input gradient at stride 1 is a convolution of grad_y: its shape.
ConvShape forward_shape(ConvPass pass, const ConvShape& shape);

// These three ask the rule of the calling thread's backend. Empty if the algorithm can run this
// pass of this shape, else the reason in the user's words.
std::string conv_refusal(const std::string& algo, ConvPass pass, const ConvShape& shape);

// Bytes the algorithm wants in ConvArgs::workspace.
int64_t conv_workspace_bytes(const std::string& algo, ConvPass pass, const ConvShape& shape,
                             int64_t element_bytes);

// What ConvArgs::packed is for a kernel of the CPU. Layouts of one weight that differ are not
// equal.
struct PackedLayout {
  const Kernel* kernel = nullptr;
  int64_t elements = 0;  // 0: the kernel packs nothing, or keeping it does not pay
  int64_t groups = 1;
  int form = 0;  // see PackedForm; of a matrix product: pieces in bfloat16
  bool operator==(const PackedLayout&) const = default;
};
PackedLayout conv_packed_layout(const Kernel& kernel, ConvPass pass, const ConvShape& shape);

// Estimated time in direct multiply-adds: the smallest cost among the legal algorithms wins `auto`.
double conv_cost(const std::string& algo, ConvPass pass, const ConvShape& shape,
                 Float32Precision precision = Float32Precision::highest);

// A kernel that `auto` may take, and the workspace it gets.
struct ConvCandidate {
  const Kernel* kernel;
  int64_t workspace_bytes;
};
// The cheapest first, by the cost rule.
std::vector<ConvCandidate> conv_candidates(const char* op, ConvPass pass, const ConvShape& shape,
                                           int64_t workspace_limit, int64_t element_bytes);

// Plan::chosen_by.
inline constexpr std::string_view kChosenByName = "algo=", kChosenByCost = "cost rule",
                                  kChosenByTime = "measured";

// Chooses among the current backend's kernels and notes the plan with every refusal.
// algo "auto" or a name; workspace_limit in bytes, negative for none. Throws if nothing is left.
// The answer depends on the arguments, the backend, float32_precision() and, with autotuning, on
// num_threads() and autotuning_epoch().
const Kernel& choose_conv(const char* op, ConvPass pass, const ConvShape& shape,
                          const std::string& algo, int64_t workspace_limit, int64_t element_bytes);

}  // namespace lamina::ops
