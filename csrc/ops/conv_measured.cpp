#include "ops/conv_measured.h"

#include <atomic>
#include <limits>
#include <map>
#include <mutex>

#include "core/threads.h"
#include "ops/conv_plan.h"
#include "ops/precision.h"

namespace lamina::ops {
namespace {

std::atomic<bool> on{false};
std::atomic<uint64_t> epoch{0};

struct Table {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<const ConvTimes>> times;
};
Table& table() {
  static Table& instance = *new Table;  // never destroyed: threads may outlive static objects
  return instance;
}

}  // namespace

bool autotuning() {
  return on.load(std::memory_order_relaxed);
}

void set_autotuning(bool value) {
  on = value;
  ++epoch;
}

uint64_t autotuning_epoch() {
  return epoch.load(std::memory_order_relaxed);
}

std::string conv_question(ConvPass pass, const ConvShape& s, int64_t workspace_limit,
                          int64_t element_bytes) {
  const Float32Precision precision = call_precision(static_cast<size_t>(element_bytes));
  std::string text = pass_name(pass);
  text += " float" + std::to_string(8 * element_bytes) + " " + precision_name(precision);
  text += " threads=" + std::to_string(num_threads());
  if (workspace_limit >= 0) text += " workspace_limit=" + std::to_string(workspace_limit);
  text += " n=" + std::to_string(s.n) + " c=" + std::to_string(s.c) + " k=" + std::to_string(s.k) +
          " groups=" + std::to_string(s.groups);
  const std::pair<const char*, const int64_t*> triples[] = {
      {"in", s.in},         {"kernel", s.kernel}, {"out", s.out},
      {"stride", s.stride}, {"pad", s.pad},       {"dilation", s.dilation}};
  for (const auto& [name, values] : triples)
    text += std::string(" ") + name + "=" + std::to_string(values[0]) + "x" +
            std::to_string(values[1]) + "x" + std::to_string(values[2]);
  return text;
}

std::shared_ptr<const ConvTimes> measured_conv(ConvPass pass, const ConvShape& shape,
                                               int64_t workspace_limit, int64_t element_bytes) {
  if (!autotuning()) return nullptr;
  const std::string question = conv_question(pass, shape, workspace_limit, element_bytes);
  const std::lock_guard lock(table().mutex);
  const auto found = table().times.find(question);
  return found == table().times.end() ? nullptr : found->second;
}

void note_measured_conv(const std::string& question, ConvTimes times) {
  {
    const std::lock_guard lock(table().mutex);
    table().times[question] = std::make_shared<const ConvTimes>(std::move(times));
  }
  ++epoch;
}

void forget_measured_conv() {
  {
    const std::lock_guard lock(table().mutex);
    table().times.clear();
  }
  ++epoch;
}

double seconds_of(const ConvTimes& times, const std::string& algo) {
  for (const auto& [name, seconds] : times)
    if (name == algo) return seconds;
  return std::numeric_limits<double>::infinity();
}

}  // namespace lamina::ops
