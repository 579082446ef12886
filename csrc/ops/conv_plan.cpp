#include "ops/conv_plan.h"

#include <algorithm>
#include <cstring>

#include "core/threads.h"
#include "ops/conv_measured.h"
#include "ops/precision.h"

namespace lamina::ops {

const char* pass_name(ConvPass pass) {
  static const char* const names[] = {"fprop", "dgrad", "wgrad", "bgrad"};
  return names[static_cast<int>(pass)];
}

namespace {

const ConvRule& rule_of(const std::string& backend, const std::string& algo) {
  if (backend != "ref" && backend != "cpu") {
    if (const ConvRule* rule = cuda_conv_rule(algo)) return *rule;
  } else {
    if (const ConvRule* rule = cpu_conv_rule(algo)) return *rule;
    if (const ConvRule* rule = bf16_conv_rule(algo)) return *rule;
  }
  throw std::logic_error("internal: no rule for the convolution algorithm " + algo);
}

}  // namespace

std::string conv_refusal(const std::string& algo, ConvPass pass, const ConvShape& shape) {
  return rule_of(current_backend(), algo).refusal(pass, shape);
}

int64_t conv_workspace_bytes(const std::string& algo, ConvPass pass, const ConvShape& shape,
                             int64_t element_bytes) {
  const ConvRule& rule = rule_of(current_backend(), algo);
  const int64_t least_bytes = rule.float_workspace ? static_cast<int64_t>(sizeof(float)) : 0;
  return rule.workspace_elements(pass, shape) * std::max(element_bytes, least_bytes);
}

PackedLayout conv_packed_layout(const Kernel& kernel, ConvPass pass, const ConvShape& shape) {
  PackedForm packed;
  if (std::strcmp(kernel.backend, "cpu") == 0)
    if (const auto packed_of = rule_of(kernel.backend, kernel.algo).packed)
      packed = packed_of(pass, shape);
  return {&kernel, packed.elements, shape.groups, packed.form};
}

double conv_cost(const std::string& algo, ConvPass pass, const ConvShape& shape,
                 Float32Precision precision) {
  const ConvRule& rule = rule_of(current_backend(), algo);
  const bool exact = precision == Float32Precision::highest || !rule.tf32_cost;
  return (exact ? rule.cost : rule.tf32_cost)(pass, shape);
}

namespace {

// Why an algorithm may not run, or the workspace it gets.
struct Verdict {
  std::string reason;
  int64_t workspace_bytes = 0;
};

Verdict judge(const std::string& backend, const std::string& algo, bool automatic, ConvPass pass,
              const ConvShape& shape, int64_t workspace_limit, int64_t element_bytes) {
  const ConvRule& rule = rule_of(backend, algo);
  std::string reason = conv_refusal(algo, pass, shape);
  if (!reason.empty()) return {reason};
  const Float32Precision precision = call_precision(static_cast<size_t>(element_bytes));
  if (rule.float32_only && element_bytes != sizeof(float)) return {"needs float32"};
  if (rule.imprecise && precision < rule.enough)
    if (automatic || rule.enough == Float32Precision::medium) return {rule.imprecise};
  const int64_t bytes = conv_workspace_bytes(algo, pass, shape, element_bytes);
  if (workspace_limit < 0 || bytes <= workspace_limit) return {"", bytes};
  if (rule.optional_workspace) return {};
  return {"needs " + std::to_string(bytes) +
          " bytes of workspace, above workspace_limit=" + std::to_string(workspace_limit)};
}

}  // namespace

std::vector<ConvCandidate> conv_candidates(const char* op, ConvPass pass, const ConvShape& shape,
                                           int64_t workspace_limit, int64_t element_bytes) {
  std::vector<std::pair<double, ConvCandidate>> found;
  const Backend& backend = current_backend_kernels(op);
  const Float32Precision precision = call_precision(static_cast<size_t>(element_bytes));
  for (size_t i = 0; i < backend.kernel_count; ++i) {
    const Kernel& kernel = backend.kernels[i];
    if (std::strcmp(kernel.op, "conv") != 0 || std::strcmp(pass_name(pass), kernel.pass) != 0)
      continue;
    const Verdict verdict =
        judge(current_backend(), kernel.algo, true, pass, shape, workspace_limit, element_bytes);
    if (verdict.reason.empty())
      found.push_back(
          {conv_cost(kernel.algo, pass, shape, precision), {&kernel, verdict.workspace_bytes}});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<ConvCandidate> candidates;
  for (const auto& [cost, candidate] : found) candidates.push_back(candidate);
  return candidates;
}

namespace {

struct Choice {
  const Kernel* kernel = nullptr;
  std::shared_ptr<const Plan> plan;
};

Choice compare_algorithms(const char* op, ConvPass pass, const ConvShape& shape,
                          const std::string& algo, int64_t workspace_limit, int64_t element_bytes) {
  const bool automatic = algo == "auto";
  if (!automatic) find_kernel("conv", pass_name(pass), algo.c_str());  // an unknown name throws
  const Kernel* best = nullptr;
  double best_cost = 0;
  const Float32Precision precision = call_precision(static_cast<size_t>(element_bytes));
  Plan plan{op, pass_name(pass), current_backend(), "", "", 0, {}, precision_name(precision)};
  const auto times =
      automatic ? measured_conv(pass, shape, workspace_limit, element_bytes) : nullptr;
  plan.chosen_by = times ? kChosenByTime : automatic ? kChosenByCost : kChosenByName;
  const std::string by = times ? " as measured" : " by the cost rule";
  const Backend& backend = current_backend_kernels(op);
  for (size_t i = 0; i < backend.kernel_count; ++i) {
    const Kernel& kernel = backend.kernels[i];
    if (std::strcmp(kernel.op, "conv") != 0 || plan.pass != kernel.pass) continue;
    if (!automatic && algo != kernel.algo) {
      plan.refusals.push_back({kernel.algo, "algo='" + algo + "' was asked for"});
      continue;
    }
    const Verdict verdict =
        judge(plan.backend, kernel.algo, automatic, pass, shape, workspace_limit, element_bytes);
    if (!verdict.reason.empty()) {
      plan.refusals.push_back({kernel.algo, verdict.reason});
      continue;
    }
    const double cost =
        times ? seconds_of(*times, kernel.algo) : conv_cost(kernel.algo, pass, shape, precision);
    if (best != nullptr && cost >= best_cost) {
      plan.refusals.push_back({kernel.algo, "slower than " + std::string(best->algo) + by});
      continue;
    }
    if (best != nullptr)
      plan.refusals.push_back({best->algo, "slower than " + std::string(kernel.algo) + by});
    best = &kernel;
    best_cost = cost;
    plan.workspace_bytes = verdict.workspace_bytes;
  }
  if (best == nullptr) {
    std::string reasons;
    for (const Refusal& refusal : plan.refusals)
      if (automatic || refusal.algo == algo) reasons += "; " + refusal.algo + ": " + refusal.reason;
    throw std::invalid_argument(message(op, "no algorithm can run pass '", plan.pass,
                                        "' with algo='", algo, "'", reasons, "; use algo='auto'"));
  }
  plan.algo = best->algo;
  if (plan.backend == "cpu") plan.isa = isa_of(*best);
  return {best, std::make_shared<const Plan>(std::move(plan))};
}

// All that the choice depends on.
struct Question {
  std::string op, algo;
  const Backend* backend = nullptr;
  ConvPass pass = ConvPass::fprop;
  int64_t workspace_limit = 0, element_bytes = 0;
  Float32Precision precision = Float32Precision::highest;
  uint64_t measurements = 0;  // made so far
  int threads = 0;            // measured times depend on them
  ConvShape shape;
};

bool same(const ConvShape& a, const ConvShape& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;  // integers without padding between them
}

size_t hash_of(const ConvShape& s, ConvPass pass) {
  const int64_t words[] = {s.n, s.c, s.k, s.in[2], s.out[1], s.kernel[2], s.pad[2]};
  uint64_t hash = static_cast<uint64_t>(pass);
  for (int64_t word : words) hash = hash * 31 + static_cast<uint64_t>(word);
  return (hash * 0x9e3779b97f4a7c15) >> 32;
}

}  // namespace

const Kernel& choose_conv(const char* op, ConvPass pass, const ConvShape& shape,
                          const std::string& algo, int64_t workspace_limit, int64_t element_bytes) {
  struct Answered {
    Question question;
    Choice choice;
  };
  constexpr size_t kAnswers = 128;
  thread_local std::vector<Answered> answers(kAnswers);
  Answered& answered = answers[hash_of(shape, pass) % kAnswers];
  const Question& last = answered.question;
  const Backend* const backend = &current_backend_kernels(op);
  const Float32Precision precision = call_precision(static_cast<size_t>(element_bytes));
  const int threads = autotuning() ? num_threads() : 0;
  const bool known = last.backend == backend && last.pass == pass && same(last.shape, shape) &&
                     last.workspace_limit == workspace_limit &&
                     last.element_bytes == element_bytes && last.precision == precision &&
                     last.measurements == autotuning_epoch() && last.threads == threads &&
                     last.algo == algo && last.op == op;
  if (!known) {
    Choice choice = compare_algorithms(op, pass, shape, algo, workspace_limit, element_bytes);
    answered.question = {
        op,      algo, backend, pass, workspace_limit, element_bytes, precision, autotuning_epoch(),
        threads, shape};
    answered.choice = std::move(choice);
  }
  note_plan(answered.choice.plan);
  return *answered.choice.kernel;
}

}  // namespace lamina::ops
