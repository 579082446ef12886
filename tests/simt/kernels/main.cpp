// The test program: runs its tests by name, or all, and prints what happened as JSON.
//
//   program list
//   program run SCHEDULE THREADS [NAME...]
#include <cstdio>

#include "harness.h"
#include "simt/check.h"

namespace harness {

namespace {

uint64_t digested;

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c < ' ' ? ' ' : c;
  }
  return out + "\"";
}

std::string field(const char* name, unsigned long long value) {
  return quoted(name) + ": " + std::to_string(value);
}

template <class Entry, class Write>
std::string list(const char* name, const std::vector<Entry>& entries, Write write) {
  std::string out = quoted(name) + ": [";
  for (size_t i = 0; i < entries.size(); ++i) out += (i ? ", {" : "{") + write(entries[i]) + "}";
  return out + "]";
}

std::string checked() {
#ifdef SIMT_CHECK
  const auto finding = [](const simt::Finding& f) {
    return "\"kind\": " + quoted(f.kind) + ", \"kernel\": " + quoted(f.kernel) +
           ", \"text\": " + quoted(f.text) + ", " + field("count", f.count);
  };
  const auto line = [](const simt::Requests& r) {
    return "\"kernel\": " + quoted(r.kernel) + ", \"file\": " + quoted(r.file) + ", " +
           field("line", static_cast<unsigned>(r.line)) + ", " + field("shared", r.shared) + ", " +
           field("write", r.write) + ", " + field("atomic", r.atomic) + ", " +
           field("requests", r.requests) + ", " + field("lanes", r.lanes) + ", " +
           field("bytes", r.bytes) + ", " + field("sectors", r.sectors) + ", " +
           field("ideal_sectors", r.ideal_sectors) + ", " + field("wavefronts", r.wavefronts) +
           ", " + field("ideal_wavefronts", r.ideal_wavefronts);
  };
  return ", " + list("findings", simt::findings(), finding) + ", " +
         list("requests", simt::requests(), line);
#else
  return "";
#endif
}

void run(const Test& test) {
  digested = 0xcbf29ce484222325u;
  simt::reset_counters();
#ifdef SIMT_CHECK
  simt::clear_check();
#endif
  std::string failure;
  try {
    test.run();
  } catch (const std::exception& error) {
    failure = error.what();
  }
  const simt::Counters c = simt::counters();
  std::printf("{\"name\": %s, \"failure\": %s, \"digest\": \"%llx\", %s, %s, %s, %s%s}\n",
              quoted(test.name).c_str(), quoted(failure).c_str(),
              static_cast<unsigned long long>(digested), field("launches", c.launches).c_str(),
              field("flops", c.flops).c_str(), field("special", c.special).c_str(),
              field("mma_flops", c.mma_flops).c_str(), checked().c_str());
  std::fflush(stdout);
}

}  // namespace

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

bool add_test(const char* name, void (*run_test)()) {
  tests().push_back({name, run_test});
  return true;
}

void digest(const void* data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    digested = (digested ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3u;
}

void failed(const char* what, const char* file, int line) {
  const std::string path = file;
  throw std::runtime_error(path.substr(path.rfind('/') + 1) + ":" + std::to_string(line) + ": " +
                           what);
}

}  // namespace harness

int main(int count, char** words) {
  if (count < 4) {
    for (const harness::Test& test : harness::tests()) std::printf("%s\n", test.name.c_str());
    return 0;
  }
  const std::string schedule = words[2];
  simt::options().schedule = schedule == "reverse"  ? simt::Schedule::reverse
                             : schedule == "random" ? simt::Schedule::random
                                                    : simt::Schedule::forward;
  simt::options().threads = std::atoi(words[3]);
  for (const harness::Test& test : harness::tests()) {
    bool wanted = count == 4;
    for (int i = 4; i < count; ++i) wanted |= test.name == words[i];
    if (wanted) harness::run(test);
  }
}
