// The extension modules lamina._simt and lamina._simt_check: the CUDA kernels on the CPU. Importing
// one makes its kernels join the registry as the backend of that name.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "cuda/kernel_table.h"
#include "simt/runtime.h"
#ifdef SIMT_CHECK
#include "simt/check.h"
#endif

namespace lamina::bindings {
namespace {

namespace py = pybind11;

#ifdef SIMT_CHECK
constexpr const char* kName = "simt_check";
#else
constexpr const char* kName = "simt";
#endif

void begin_call(const ops::CallMemory* memory, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const auto contents = memory[i].read
                              ? memory[i].written ? simt::Contents::in_out : simt::Contents::input
                              : simt::Contents::output;
    simt::register_memory(memory[i].data, memory[i].bytes, contents, memory[i].name);
  }
}

void end_call(const ops::CallMemory* memory, size_t count) {
  for (size_t i = 0; i < count; ++i) simt::unregister_memory(memory[i].data);
}

// The kernels and the backend of one name; they stay as long as the process.
struct Registered {
  std::string name;
  std::vector<ops::Kernel> kernels;
  ops::Backend backend;

  explicit Registered(std::string backend_name)
      : name(std::move(backend_name)),
        kernels(cuda::kernel_table(name.c_str())),
        backend{name.c_str(), kernels.data(), kernels.size(), simt::allocate, simt::release} {
#ifdef SIMT_CHECK
    backend.begin_call = begin_call;
    backend.end_call = end_call;
#else
    static_cast<void>(begin_call), static_cast<void>(end_call);
#endif
    if (name != "cuda") return;
    backend.upload = [](const ops::CallMemory& memory) {
      return std::memcpy(simt::allocate(memory.bytes), memory.data, memory.bytes);
    };
    backend.download = [](const ops::CallMemory& memory, const void* copy) {
      std::memcpy(const_cast<void*>(memory.data), copy, memory.bytes);
    };
  }
};

void join_registry(const std::string& name) {
  auto* registered = new Registered(name);
  py::module_::import("lamina._C").attr("register_backend")(py::capsule(&registered->backend));
}

void set_schedule(const std::string& name, uint64_t seed) {
  const bool forward = name == "forward", reverse = name == "reverse";
  if (!forward && !reverse && name != "random")
    throw py::value_error("schedule must be 'forward', 'reverse' or 'random', got '" + name + "'");
  simt::options().schedule = forward   ? simt::Schedule::forward
                             : reverse ? simt::Schedule::reverse
                                       : simt::Schedule::random;
  simt::options().seed = seed;
}

py::dict counters() {
  const simt::Counters c = simt::counters();
  py::dict result;
  result["launches"] = c.launches, result["blocks"] = c.blocks, result["switches"] = c.switches;
  result["barriers"] = c.barriers, result["collectives"] = c.collectives;
  result["flops"] = c.flops, result["special"] = c.special, result["mma_flops"] = c.mma_flops;
  return result;
}

#ifdef SIMT_CHECK
py::list findings() {
  py::list result;
  for (const simt::Finding& finding : simt::findings()) {
    py::dict entry;
    entry["kind"] = finding.kind, entry["kernel"] = finding.kernel;
    entry["text"] = finding.text, entry["count"] = finding.count;
    result.append(entry);
  }
  return result;
}

py::list requests() {
  py::list result;
  for (const simt::Requests& line : simt::requests()) {
    py::dict entry;
    entry["kernel"] = line.kernel, entry["file"] = line.file, entry["line"] = line.line;
    entry["caller"] = line.caller;
    entry["shared"] = line.shared, entry["write"] = line.write, entry["atomic"] = line.atomic;
    entry["requests"] = line.requests, entry["lanes"] = line.lanes, entry["bytes"] = line.bytes;
    entry["sectors"] = line.sectors, entry["ideal_sectors"] = line.ideal_sectors;
    entry["wavefronts"] = line.wavefronts, entry["ideal_wavefronts"] = line.ideal_wavefronts;
    result.append(entry);
  }
  return result;
}
#endif

}  // namespace

PYBIND11_MODULE(LAMINA_MODULE, module, py::mod_gil_not_used()) {
  module.doc() = "The CUDA kernels on the CPU. Use lamina.backend or lamina.simt instead.";
  join_registry(kName);
  module.def("join_registry", &join_registry,
             "Also under another name: \"cuda\" makes a machine without a GPU take the path of one",
             py::arg("name"));
  module.def(
      "set_num_threads", [](int count) { simt::options().threads = count; }, py::arg("count"));
  module.def("set_schedule", &set_schedule, py::arg("name"), py::arg("seed") = 1);
  module.def("counters", &counters);
  module.def("reset_counters", &simt::reset_counters);
#ifdef SIMT_CHECK
  module.def("findings", &findings);
  module.def("requests", &requests);
  module.def("clear_check", &simt::clear_check);
#endif
}

}  // namespace lamina::bindings
