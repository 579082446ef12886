// Kernels that only the processor has: of NumPy arrays. Those of CuPy are computed by CuPy.
#pragma once

#include <optional>
#include <string>

#include "bindings/common.h"
#include "ops/registry.h"

namespace lamina::bindings {

// Until its end the backend is "cpu" or "ref".
class OnProcessor {
 public:
  explicit OnProcessor(bool reference = false) {
    const std::string& name = ops::current_backend();
    if (name == "ref" || (name == "cpu" && !reference)) return;
    before_ = name;
    ops::set_current_backend(reference ? "ref" : "cpu");
  }
  ~OnProcessor() {
    if (before_) ops::set_current_backend(*before_);
  }
  OnProcessor(const OnProcessor&) = delete;
  OnProcessor& operator=(const OnProcessor&) = delete;

 private:
  std::optional<std::string> before_;
};

template <class Args>
void run_on_processor(const char* op, const char* pass, const Args& args, int64_t elements,
                      bool reference = false) {
  constexpr int64_t kShort = 8192;  // giving up the GIL costs more than these
  const OnProcessor processor(reference);
  std::optional<py::gil_scoped_release> release;
  if (elements > kShort) release.emplace();
  ops::run(op, pass, args);
}

}  // namespace lamina::bindings
