#include "simt/source_lines.h"

#include <cxxabi.h>
#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>

namespace simt {
namespace {

std::map<uintptr_t, SourceLine>& known() {
  static auto* lines = new std::map<uintptr_t, SourceLine>();
  return *lines;
}

std::string read_all(const std::string& command) {
  std::string output;
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  std::array<char, 4096> buffer;
  while (pipe && std::fgets(buffer.data(), buffer.size(), pipe.get())) output += buffer.data();
  return output;
}

// "kernel<float>(int, float*)" to "kernel<float>"
std::string without_parameters(const std::string& name) {
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == '(' && depth == 0 && name.compare(i, 11, "(anonymous ") != 0)
      return name.substr(0, i);
  }
  return name;
}

std::string without_namespaces(const std::string& name) {
  size_t start = 0;
  for (size_t i = 0; i + 1 < name.size() && name[i] != '<'; ++i)
    if (name[i] == ':' && name[i + 1] == ':') start = i + 2;
  return name.substr(start);
}

std::string short_name(const std::string& demangled) {
  std::string name = without_namespaces(without_parameters(demangled));
  if (name.rfind("void ", 0) == 0) name = name.substr(5);
  return name;
}

bool in_runtime(const std::string& path) {
  const std::string folder = path.substr(0, path.rfind('/'));
  return folder.size() > 5 && folder.compare(folder.size() - 5, 5, "/simt") == 0;
}

// Frames come from the innermost to the kernel's own, `place` as path:line.
void add_frame(SourceLine& into, const std::string& function, const std::string& place) {
  const size_t colon = place.rfind(':');
  const std::string path = place.substr(0, colon), file = path.substr(path.rfind('/') + 1);
  const int line = std::atoi(place.c_str() + colon + 1);
  if (in_runtime(path)) return;
  into.function = short_name(function);
  if (into.file.empty()) {
    into.file = file, into.line = line;
  } else {
    into.caller = file == into.file ? "" : file + ":" + std::to_string(line);
  }
}

}  // namespace

void resolve(const std::vector<uintptr_t>& pcs) {
  std::map<std::string, std::set<uintptr_t>> by_module;
  std::map<std::string, uintptr_t> base;
  for (uintptr_t pc : pcs) {
    Dl_info info;
    if (known().count(pc) || !dladdr(reinterpret_cast<void*>(pc), &info)) continue;
    by_module[info.dli_fname].insert(pc);
    base[info.dli_fname] = reinterpret_cast<uintptr_t>(info.dli_fbase);
  }
  for (const auto& [module, addresses] : by_module) {
    std::string command = "addr2line -a -i -f -C -e '" + module + "'";
    char text[32];
    for (uintptr_t pc : addresses) {
      std::snprintf(text, sizeof text, " 0x%zx", static_cast<size_t>(pc - 1 - base[module]));
      command += text;
    }
    // For each address: itself, then function and file:line of every inlined frame, innermost
    // first.
    const std::string output = read_all(command + " 2>/dev/null");
    size_t at = 0;
    auto next_line = [&] {
      const size_t end = output.find('\n', at);
      std::string line = output.substr(at, end - at);
      at = end == std::string::npos ? output.size() : end + 1;
      return line;
    };
    SourceLine* current = nullptr;
    while (at < output.size()) {
      const std::string first = next_line();
      if (first.rfind("0x", 0) == 0) {
        const uintptr_t offset = std::strtoull(first.c_str(), nullptr, 16);
        current = &known()[offset + 1 + base[module]];
        continue;
      }
      const std::string place = next_line();
      if (current) add_frame(*current, first, place);
    }
    for (uintptr_t pc : addresses) {
      SourceLine& line = known()[pc];
      if (!line.file.empty() && line.file != "??") continue;
      std::snprintf(text, sizeof text, "+0x%zx", static_cast<size_t>(pc - base[module]));
      line.file = text;
    }
  }
}

SourceLine source_line(uintptr_t pc) {
  resolve({pc});
  return known()[pc];
}

std::string function_name(const void* function) {
  return source_line(reinterpret_cast<uintptr_t>(function) + 1).function;
}

}  // namespace simt
