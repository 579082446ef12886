// Measured times of the convolution algorithms: with autotuning on, what `auto` goes by instead of
// the cost rule. A call whose shape has no times yet measures its candidates (bindings/conv.cpp);
// lamina.autotuning keeps the times in a file between processes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/conv.h"

namespace lamina::ops {

// Algorithm and seconds; algorithms that could not run are left out.
using ConvTimes = std::vector<std::pair<std::string, double>>;

bool autotuning();  // off until set_autotuning(true)
void set_autotuning(bool on);

// Changes when an answer of measured_conv may have changed: for those who keep answers.
uint64_t autotuning_epoch();

// All that a time depends on, beside the machine and the build: the call, its precision, threads.
std::string conv_question(ConvPass pass, const ConvShape& shape, int64_t workspace_limit,
                          int64_t element_bytes);

// Null where autotuning is off or the question was not measured.
std::shared_ptr<const ConvTimes> measured_conv(ConvPass pass, const ConvShape& shape,
                                               int64_t workspace_limit, int64_t element_bytes);
void note_measured_conv(const std::string& question, ConvTimes times);
void forget_measured_conv();

// Seconds of an algorithm, infinite where it has none.
double seconds_of(const ConvTimes& times, const std::string& algo);

}  // namespace lamina::ops
