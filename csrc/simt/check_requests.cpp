// Sectors and wavefronts of every warp instruction.
//
// A fiber runs from one point where it waits to the next, so the lanes of one instruction arrive at
// different times. They are matched by the instruction's address and by how often each lane has
// executed it since the warp last met as a whole. Where lanes have executed it more or less often
// than others, under a condition in a loop, they are matched by their iteration instead: a lane's
// iteration ends when it comes to an instruction for the second time.
#include <algorithm>
#include <map>

#include "simt/check.h"
#include "simt/check_internal.h"
#include "simt/source_lines.h"

namespace simt {
namespace {

struct Request {
  uint32_t lanes;
  uint8_t bytes;
  uint8_t kind;
  uintptr_t address[32];
  int iteration[32];
};

struct Stream {  // what the lanes of a warp did at one place since they last met
  uint32_t key;  // 2 * place + shared
  int executed[32], last_iteration[32];
  std::vector<Request> requests;
};

struct WarpStreams {
  std::vector<int> stream_of;  // by key, -1: none
  std::vector<Stream> streams;
  size_t used = 0;
  int iteration[32] = {};
};
WarpStreams warp_streams[kMaxWarps];

std::vector<Requests> totals;  // by key

// Distinct 4-byte words on the fullest of the 32 banks.
unsigned wavefronts(const Request& request, uint32_t lanes) {
  uintptr_t words[32][32];
  unsigned count[32] = {}, worst = 0;
  for (uint32_t rest = request.lanes & lanes; rest; rest &= rest - 1) {
    const uintptr_t address = request.address[__builtin_ctz(rest)];
    for (uintptr_t word = address / 4; word <= (address + request.bytes - 1) / 4; ++word) {
      const unsigned bank = word % 32;
      if (std::find(words[bank], words[bank] + count[bank], word) != words[bank] + count[bank])
        continue;
      words[bank][count[bank]++] = word;
      worst = std::max(worst, count[bank]);
    }
  }
  return worst;
}

// 16-byte accesses are served by quarter warps, 8-byte ones by half warps.
void add_shared(const Request& request, Requests& total) {
  const unsigned together = request.bytes >= 16 ? 8 : request.bytes >= 8 ? 16 : 32;
  for (unsigned lane = 0; lane < 32; lane += together) {
    const uint32_t group = together == 32 ? ~0u : ((1u << together) - 1) << lane;
    if (!(request.lanes & group)) continue;
    total.wavefronts += wavefronts(request, group);
    total.ideal_wavefronts++;
  }
}

void add_global(const Request& request, Requests& total) {
  uintptr_t sectors[64], addresses[32];
  size_t sector_count = 0, address_count = 0;
  for (uint32_t rest = request.lanes; rest; rest &= rest - 1) {
    const uintptr_t address = request.address[__builtin_ctz(rest)];
    const uintptr_t last = address + request.bytes - 1;
    addresses[address_count++] = address;
    sectors[sector_count++] = address / 32;
    if (last / 32 != address / 32) sectors[sector_count++] = last / 32;
  }
  std::sort(sectors, sectors + sector_count);
  std::sort(addresses, addresses + address_count);
  const auto distinct =
      static_cast<size_t>(std::unique(addresses, addresses + address_count) - addresses);
  total.sectors += static_cast<size_t>(std::unique(sectors, sectors + sector_count) - sectors);
  total.ideal_sectors += (distinct * request.bytes + 31) / 32;
}

void add_request(const Request& request, Requests& total) {
  const auto lanes = static_cast<unsigned>(__builtin_popcount(request.lanes));
  total.requests++;
  total.lanes += lanes;
  total.bytes += uint64_t{lanes} * request.bytes;
  total.write |= (request.kind & kWrite) != 0;
  total.atomic |= (request.kind & kAtomic) != 0;
  if (total.shared)
    add_shared(request, total);
  else
    add_global(request, total);
}

bool executed_alike(const Stream& stream) {
  int count = 0;
  for (const int executed : stream.executed) {
    if (executed && count && executed != count) return false;
    count = std::max(count, executed);
  }
  return true;
}

void add_by_iteration(const Stream& stream, Requests& total) {
  static std::vector<Request> requests;
  const int last = *std::max_element(stream.last_iteration, stream.last_iteration + 32);
  requests.assign(static_cast<size_t>(last) + 1, Request{});
  for (const Request& from : stream.requests)
    for (uint32_t rest = from.lanes; rest; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      Request& into = requests[static_cast<size_t>(from.iteration[lane])];
      into.lanes |= 1u << lane;
      into.bytes = from.bytes, into.kind = from.kind;
      into.address[lane] = from.address[lane];
    }
  for (const Request& request : requests)
    if (request.lanes) add_request(request, total);
}

}  // namespace

void record_request(uintptr_t address, unsigned bytes, unsigned kind, uint32_t place, bool shared) {
  Worker& worker = *this_worker();
  WarpStreams& warp = warp_streams[worker.warp];
  const uint32_t key = place * 2 + shared;
  if (warp.stream_of.size() <= key) warp.stream_of.resize(key + 64, -1);
  int& index = warp.stream_of[key];
  if (index < 0) {
    index = static_cast<int>(warp.used++);
    if (warp.streams.size() < warp.used) warp.streams.emplace_back();
    Stream& fresh = warp.streams[static_cast<size_t>(index)];
    fresh.key = key;
    fresh.requests.clear();
    std::fill_n(fresh.executed, 32, 0);
    std::fill_n(fresh.last_iteration, 32, -1);
  }
  Stream& stream = warp.streams[static_cast<size_t>(index)];
  const auto occurrence = static_cast<size_t>(stream.executed[worker.lane]++);
  if (occurrence >= stream.requests.size()) stream.requests.push_back({});
  Request& request = stream.requests[occurrence];
  request.lanes |= 1u << worker.lane;
  request.bytes = static_cast<uint8_t>(bytes);
  request.kind = static_cast<uint8_t>(kind);
  request.address[worker.lane] = address;
  int& iteration = warp.iteration[worker.lane];
  if (stream.last_iteration[worker.lane] == iteration) ++iteration;
  stream.last_iteration[worker.lane] = request.iteration[worker.lane] = iteration;
}

void end_requests(Worker&, int warp_index) {
  WarpStreams& warp = warp_streams[warp_index];
  for (size_t i = 0; i < warp.used; ++i) {
    Stream& stream = warp.streams[i];
    if (totals.size() <= stream.key) totals.resize(stream.key + 64);
    Requests& total = totals[stream.key];
    total.shared = stream.key & 1;
    if (executed_alike(stream))
      for (const Request& request : stream.requests) add_request(request, total);
    else
      add_by_iteration(stream, total);
    warp.stream_of[stream.key] = -1;
  }
  warp.used = 0;
  std::fill_n(warp.iteration, 32, 0);
}

void clear_requests() {
  totals.clear();
}

std::vector<Requests> requests() {
  std::vector<uintptr_t> pcs;
  for (size_t key = 0; key < totals.size(); ++key)
    if (totals[key].requests) pcs.push_back(place_pc(static_cast<uint32_t>(key / 2)));
  resolve(pcs);
  std::map<std::tuple<std::string, std::string, int, std::string, bool, bool>, Requests> by_line;
  for (size_t key = 0; key < totals.size(); ++key) {
    const Requests& from = totals[key];
    if (!from.requests) continue;
    const SourceLine line = source_line(place_pc(static_cast<uint32_t>(key / 2)));
    Requests& into =
        by_line[{line.function, line.file, line.line, line.caller, from.shared, from.write}];
    into.kernel = line.function, into.caller = line.caller;
    into.file = line.file, into.line = line.line;
    into.shared = from.shared, into.write = from.write, into.atomic |= from.atomic;
    into.requests += from.requests, into.lanes += from.lanes, into.bytes += from.bytes;
    into.sectors += from.sectors, into.ideal_sectors += from.ideal_sectors;
    into.wavefronts += from.wavefronts, into.ideal_wavefronts += from.ideal_wavefronts;
  }
  std::vector<Requests> result;
  for (auto& [key, value] : by_line) result.push_back(value);
  return result;
}

}  // namespace simt
