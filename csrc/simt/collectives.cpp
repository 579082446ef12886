// Warp collectives. Every lane deposits its operand and waits; the last one of the mask to arrive
// computes the results of all. Partial and disjoint masks need nothing special, and lanes that meet
// in different operations, masks or lines are seen at once.
#include <cstring>

#include "simt/worker.h"

namespace simt {
namespace {

constexpr bool is_matrix(Collective kind) {
  return kind >= Collective::mma_tf32;
}
constexpr bool is_mma(Collective kind) {
  return kind >= Collective::mma_tf32 && kind <= Collective::mma_bf16;
}

float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = bits >> 10 & 31u, mantissa = bits & 1023u;
  if (exponent == 31) return bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent) return bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -tiny : tiny;
}

// D = A B + C of one warp. Products are exact, sums are in double and rounded once: the hardware
// truncates, so results agree within its error bound, not bit by bit.
void multiply(Worker& worker, Arrival* lanes, Collective kind) {
  const bool tf32 = kind == Collective::mma_tf32;
  const int depth = tf32 ? 8 : 16;
  float a[16][16], b[16][8];
  double sum[16][8];
  auto element = [&](uint32_t pair, int half) {
    const auto bits = static_cast<uint16_t>(pair >> (16 * half));
    return kind == Collective::mma_f16 ? half_to_float(bits)
                                       : bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  };
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const MmaFragments*>(lanes[lane].fragments);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i & 1);
      if (tf32) a[row][t + 4 * (i >> 1)] = bit_cast<float>(own.a[i] & ~0x1fffu);
      for (int h = 0; h < 2 && !tf32; ++h) a[row][2 * t + h + 8 * (i >> 1)] = element(own.a[i], h);
      sum[g + 8 * (i >> 1)][2 * t + (i & 1)] = own.c[i];
    }
    for (int i = 0; i < 2; ++i) {
      if (tf32) b[t + 4 * i][g] = bit_cast<float>(own.b[i] & ~0x1fffu);
      for (int h = 0; h < 2 && !tf32; ++h) b[2 * t + h + 8 * i][g] = element(own.b[i], h);
    }
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < depth; ++k)
      for (int column = 0; column < 8; ++column)
        sum[row][column] += static_cast<double>(a[row][k]) * static_cast<double>(b[k][column]);
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const MmaFragments*>(lanes[lane].fragments);
    for (int i = 0; i < 4; ++i)
      own.d[i] = static_cast<float>(sum[lane / 4 + 8 * (i >> 1)][2 * (lane % 4) + (i & 1)]);
  }
  worker.counters.mma_flops += 2ull * 16 * 8 * static_cast<unsigned>(depth);
}

// Matrix i of lane l: elements 2 (l % 4) and the next of row l / 4; transposed, of column l / 4.
void load_matrices(Arrival* lanes, bool transposed) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const MatrixRows*>(lanes[lane].fragments);
    for (int i = 0; i < 4; ++i) {
      uint32_t pair = 0;
      for (int h = 0; h < 2; ++h) {
        const int along = 2 * (lane % 4) + h, across = lane / 4;
        const int row = transposed ? along : across, column = transposed ? across : along;
        const auto* source = static_cast<const MatrixRows*>(lanes[8 * i + row].fragments)->row;
        uint16_t bits;
        std::memcpy(&bits, static_cast<const char*>(source) + 2 * column, 2);
        pair |= static_cast<uint32_t>(bits) << (16 * h);
      }
      *own.registers[i] = pair;
    }
  }
}

// The lane whose operand a shuffle gives to `lane`; its own where the source leaves the segment.
int source_lane(const Arrival& own, int lane) {
  const int first = lane & ~(own.width - 1), last = first | (own.width - 1);
  switch (own.kind) {
    case Collective::shuffle:
      return first | (own.lane_argument & (own.width - 1));
    case Collective::shuffle_up:
      return lane - own.lane_argument >= first ? lane - own.lane_argument : lane;
    case Collective::shuffle_down:
      return lane + own.lane_argument <= last ? lane + own.lane_argument : lane;
    default:
      return (lane ^ own.lane_argument) <= last ? lane ^ own.lane_argument : lane;
  }
}

void shuffle(Worker& worker, Arrival* lanes, int warp, uint32_t present) {
  constexpr uint64_t kUndefined = 0x7fc0dead7fc0deadull;
  for (uint32_t rest = present; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest), source = source_lane(lanes[lane], lane);
    if (present >> source & 1) {
      lanes[lane].result = lanes[source].operand;
      continue;
    }
    lanes[lane].result = kUndefined;
    if (checker.report) {
      const std::string at = location(lanes[lane].file, lanes[lane].line);
      checker.report("inactive-lane", at,
                     "shuffle at " + at + ": lane " + std::to_string(lane) + " reads lane " +
                         std::to_string(source) + ", which takes no part; " +
                         describe_thread(worker, warp * 32 + lane));
    }
  }
}

uint64_t reduce(const Arrival* lanes, uint32_t present, Collective kind) {
  uint64_t result = kind == Collective::reduce_min ? ~0u : 0;
  for (uint32_t rest = present; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    const auto operand = static_cast<uint32_t>(lanes[lane].operand);
    if (kind == Collective::reduce_add) result += operand;
    if (kind == Collective::reduce_max && operand > result) result = operand;
    if (kind == Collective::reduce_min && operand < result) result = operand;
  }
  return static_cast<uint32_t>(result);
}

void vote_or_reduce(Arrival* lanes, uint32_t present, Collective kind) {
  uint32_t votes = 0;
  for (uint32_t rest = present; rest; rest &= rest - 1)
    if (lanes[__builtin_ctz(rest)].operand) votes |= rest & -rest;
  const uint64_t reduced = reduce(lanes, present, kind);
  for (uint32_t rest = present; rest; rest &= rest - 1) {
    Arrival& own = lanes[__builtin_ctz(rest)];
    own.result = kind == Collective::ballot ? votes
                 : kind == Collective::any  ? votes != 0
                 : kind == Collective::all  ? votes == present
                                            : reduced;
    if (kind != Collective::match_any) continue;
    own.result = 0;
    for (uint32_t other = present; other; other &= other - 1)
      if (lanes[__builtin_ctz(other)].operand == own.operand) own.result |= other & -other;
  }
}

void complete(Worker& worker, int warp, uint32_t present) {
  Arrival* lanes = &worker.arrivals[warp * 32];
  const int first = __builtin_ctz(present);
  const Collective kind = lanes[first].kind;
  for (uint32_t rest = present; rest; rest &= rest - 1) {
    const Arrival& other = lanes[__builtin_ctz(rest)];
    if (other.kind != kind || other.mask != lanes[first].mask || other.line != lanes[first].line)
      abandon(worker, "divergent-warp",
              "different collectives or masks meet: " + describe_thread(worker, warp * 32 + first) +
                  " at " + location(lanes[first].file, lanes[first].line) + ", " +
                  describe_thread(worker, warp * 32 + __builtin_ctz(rest)) + " at " +
                  location(other.file, other.line));
  }
  if (is_matrix(kind) && present != ~0u)
    abandon(
        worker, "divergent-warp",
        "a matrix instruction needs all 32 lanes: " + describe_thread(worker, warp * 32 + first) +
            " at " + location(lanes[first].file, lanes[first].line));
  if (is_mma(kind))
    multiply(worker, lanes, kind);
  else if (is_matrix(kind))
    load_matrices(lanes, kind == Collective::ldmatrix_trans);
  else if (kind >= Collective::shuffle && kind <= Collective::shuffle_xor)
    shuffle(worker, lanes, warp, present);
  else if (kind != Collective::syncwarp)
    vote_or_reduce(lanes, present, kind);
  if (kind == Collective::syncwarp && checker.syncwarp) checker.syncwarp(worker, warp, present);
  if (present == worker.live[warp] && checker.converged) checker.converged(worker, warp);
  worker.in_collective[warp] &= ~present;
  make_ready(worker, warp, present);
  worker.counters.collectives++;
}

}  // namespace

uint64_t collective(Collective kind, unsigned mask, uint64_t operand, int lane_argument, int width,
                    void* fragments, const char* file, int line) {
  Worker& worker = *this_worker();
  const int warp = worker.warp, lane = worker.lane;
  Arrival& own = worker.arrivals[worker.thread()];
  own = {mask, kind, lane_argument, width, operand, 0, fragments, file, line};
  if (!(mask >> lane & 1))
    abandon(worker, "divergent-warp",
            "the mask of a collective does not name the calling lane: " +
                describe_thread(worker, worker.thread()) + " at " + location(file, line));
  if (kind >= Collective::ldmatrix) {
    const void* row = static_cast<const MatrixRows*>(fragments)->row;
    if (reinterpret_cast<uintptr_t>(row) % 16)
      abandon(worker, "misaligned",
              "ldmatrix: row address not a multiple of 16, " +
                  describe_thread(worker, worker.thread()) + " at " + location(file, line));
    if (checker.access) checker.access(row, 16, kRead, SIMT_CALLER);
  }
  worker.in_collective[warp] |= 1u << lane;
  const uint32_t needed = mask & worker.live[warp];
  if ((worker.in_collective[warp] & needed) == needed) {
    complete(worker, warp, needed);
    resume_here(worker, warp * 32 + lane);
  } else {
    block_current(worker);
  }
  return own.result;
}

void finish_collectives(Worker& worker, int warp) {
  for (uint32_t waiting = worker.in_collective[warp]; waiting;) {
    const uint32_t mask = worker.arrivals[warp * 32 + __builtin_ctz(waiting)].mask;
    const uint32_t needed = mask & worker.live[warp];
    if ((worker.in_collective[warp] & needed) == needed) complete(worker, warp, needed);
    waiting &= ~mask;
  }
}

unsigned active_lanes() {
  return this_worker()->live[this_worker()->warp];
}

}  // namespace simt
