// Recurrent cells: the gates of one time step in one pass (formulas in ops/rnn.h).
//
// Method        a thread takes sixteen bytes of neighbouring hidden units, all their gates in
//               registers; peephole gradients are sums over the batch of what the pass has written.
// Partitioning  256 threads along the hidden units of a row, a block a row or more. The peephole
//               sums: device/lines.h over the batch, parts of it added in order.
// Floor         one read and one write of the gates, c and h.
#include "cuda/device/launch.h"
#include "cuda/device/lines.h"
#include "cuda/device/partial_sums.h"
#include "cuda/instantiate.h"
#include "ops/rnn.h"

namespace lamina::cuda {

using ops::GruCellArgs;
using ops::LstmCellArgs;

static constexpr int kThreads = 128;
static constexpr unsigned kMaxRows = 0xffff;  // of a grid's y; blocks walk on from there

template <class A>
__device__ __forceinline__ A sigmoid(A x) {
  const A e = exp(-fabs(x));  // at most 1
  return (x >= A(0) ? A(1) : e) / (A(1) + e);
}
template <class A>
__device__ __forceinline__ A slope(A gate) {  // of sigmoid, from its value
  return gate * (A(1) - gate);
}

// N neighbouring hidden units in the arithmetic's type.
template <class T, int N>
struct Units {
  Acc<T> v[N];

  __device__ __forceinline__ static Units read(const T* p) {
    const Vector<T, N> vector = load<T, N>(p);
    Units units;
#pragma unroll
    for (int e = 0; e < N; ++e) units.v[e] = widen(vector.element[e]);
    return units;
  }
  __device__ __forceinline__ static Units read_or_zero(const T* p, int64_t offset) {
    if (p) return read(p + offset);
    Units units;
#pragma unroll
    for (int e = 0; e < N; ++e) units.v[e] = Acc<T>(0);
    return units;
  }
  __device__ __forceinline__ void write(T* p) const {
    Vector<T, N> vector;
#pragma unroll
    for (int e = 0; e < N; ++e) vector.element[e] = narrow<T>(v[e]);
    store<T, N>(p, vector);
  }
};

// ---- LSTM

template <class T, int N>
__global__ void __launch_bounds__(kThreads) lstm_fprop_kernel(LstmCellArgs<T> args) {
  using A = Acc<T>;
  using U = Units<T, N>;
  const int64_t hidden = args.hidden, j = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (j >= hidden) return;
  const U p_i = U::read_or_zero(args.peephole, j);
  const U p_f = U::read_or_zero(args.coupled ? nullptr : args.peephole, hidden + j);
  const U p_o = U::read_or_zero(args.peephole, args.peephole_o() * hidden + j);
  for (int64_t n = blockIdx.y; n < args.n; n += gridDim.y) {
    T* const gates = args.gates + n * args.gate_count() * hidden + j;
    const int64_t at = n * hidden + j;
    const U c = U::read(args.c + at);
    U i = U::read(gates + args.i() * hidden), g = U::read(gates + args.g() * hidden);
    U f = args.coupled ? i : U::read(gates + args.f() * hidden);
    U o = U::read(gates + args.o() * hidden), new_c, h;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      i.v[e] = sigmoid(i.v[e] + p_i.v[e] * c.v[e]);
      f.v[e] = args.coupled ? A(1) - i.v[e] : sigmoid(f.v[e] + p_f.v[e] * c.v[e]);
      g.v[e] = tanh(g.v[e]);
      new_c.v[e] = f.v[e] * c.v[e] + i.v[e] * g.v[e];
      o.v[e] = sigmoid(o.v[e] + p_o.v[e] * new_c.v[e]);
      h.v[e] = o.v[e] * tanh(new_c.v[e]);
    }
    i.write(gates + args.i() * hidden), g.write(gates + args.g() * hidden);
    if (!args.coupled) f.write(gates + args.f() * hidden);
    o.write(gates + args.o() * hidden);
    new_c.write(args.new_c + at), h.write(args.h + at);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) lstm_dgrad_kernel(LstmCellArgs<T> args) {
  using A = Acc<T>;
  using U = Units<T, N>;
  const int64_t hidden = args.hidden, j = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (j >= hidden) return;
  const U p_i = U::read_or_zero(args.peephole, j);
  const U p_f = U::read_or_zero(args.coupled ? nullptr : args.peephole, hidden + j);
  const U p_o = U::read_or_zero(args.peephole, args.peephole_o() * hidden + j);
  for (int64_t n = blockIdx.y; n < args.n; n += gridDim.y) {
    const int64_t row = n * args.gate_count() * hidden + j, at = n * hidden + j;
    U i = U::read(args.gates + row + args.i() * hidden);
    U g = U::read(args.gates + row + args.g() * hidden);
    U f = args.coupled ? i : U::read(args.gates + row + args.f() * hidden);
    U o = U::read(args.gates + row + args.o() * hidden);
    U c = U::read(args.c + at);
    const U new_c = U::read(args.new_c + at);
    const U grad_h = U::read(args.grad_h + at), grad_new_c = U::read(args.grad_new_c + at);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const A i_e = i.v[e], g_e = g.v[e], f_e = args.coupled ? A(1) - i_e : f.v[e];
      const A t = tanh(new_c.v[e]), d_o = grad_h.v[e] * t * slope(o.v[e]);
      const A d_c = grad_new_c.v[e] + grad_h.v[e] * o.v[e] * (A(1) - t * t) + d_o * p_o.v[e];
      const A d_i = d_c * (args.coupled ? g_e - c.v[e] : g_e) * slope(i_e);
      const A d_f = args.coupled ? A(0) : d_c * c.v[e] * slope(f_e);
      i.v[e] = d_i, f.v[e] = d_f, g.v[e] = d_c * i_e * (A(1) - g_e * g_e), o.v[e] = d_o;
      c.v[e] = d_c * f_e + d_i * p_i.v[e] + d_f * p_f.v[e];
    }
    i.write(args.grad_gates + row + args.i() * hidden);
    if (!args.coupled) f.write(args.grad_gates + row + args.f() * hidden);
    g.write(args.grad_gates + row + args.g() * hidden);
    o.write(args.grad_gates + row + args.o() * hidden);
    c.write(args.grad_c + at);
  }
}

// partial[part][row][hidden] = sums over a part of the batch of the stored gradient of the row's
// gate times the cell state that its peephole sees.
template <class T>
__global__ void __launch_bounds__(Columns::kThreads)
    peephole_kernel(LineShape shape, LstmCellArgs<T> args, Acc<T>* partial) {
  using A = Acc<T>;
  const Columns lines(shape);
  const int64_t hidden = args.hidden, j = lines.line;
  A sums[3] = {A(0), A(0), A(0)};
  if (lines.valid) {
    for (int64_t n = lines.begin + lines.rank; n < lines.end; n += lines.ranks()) {
      const T* const gates = args.grad_gates + n * args.gate_count() * hidden + j;
      const A c = widen(args.c[n * hidden + j]), new_c = widen(args.new_c[n * hidden + j]);
      sums[0] += widen(gates[args.i() * hidden]) * c;
      if (!args.coupled) sums[1] += widen(gates[args.f() * hidden]) * c;
      sums[2] += widen(gates[args.o() * hidden]) * new_c;
    }
  }
  const int rows = args.coupled ? 2 : 3;
#pragma unroll
  for (int gate = 0; gate < 3; ++gate) {
    const A sum = lines.reduce(sums[gate], Sum());
    const int row = gate == 2 ? rows - 1 : gate;
    if (lines.valid && lines.rank == 0 && !(gate == 1 && args.coupled))
      partial[(int64_t{blockIdx.y} * rows + row) * hidden + j] = sum;
  }
}

template <class T>
static dim3 cell_grid(int64_t n, int64_t hidden, int lanes) {
  return dim3(grid_size(ceil_div(hidden, kThreads * lanes)),
              static_cast<unsigned>(min(n, int64_t{kMaxRows})));
}

template <class T>
void lstm_cell_fprop_fused(const LstmCellArgs<T>& args) {
  constexpr int kN = kWide<T>;
  if (args.hidden % kN == 0 && is_wide(args.c, args.peephole, args.gates, args.new_c, args.h))
    launch(lstm_fprop_kernel<T, kN>, cell_grid<T>(args.n, args.hidden, kN), kThreads, 0, args);
  else
    launch(lstm_fprop_kernel<T, 1>, cell_grid<T>(args.n, args.hidden, 1), kThreads, 0, args);
}

template <class T>
void lstm_cell_dgrad_fused(const LstmCellArgs<T>& args) {
  constexpr int kN = kWide<T>;
  if (args.hidden % kN == 0 && is_wide(args.c, args.peephole, args.gates, args.new_c) &&
      is_wide(args.grad_h, args.grad_new_c, args.grad_gates, args.grad_c))
    launch(lstm_dgrad_kernel<T, kN>, cell_grid<T>(args.n, args.hidden, kN), kThreads, 0, args);
  else
    launch(lstm_dgrad_kernel<T, 1>, cell_grid<T>(args.n, args.hidden, 1), kThreads, 0, args);
  if (!args.grad_peephole) return;
  LineShape shape{1, args.n, args.hidden};
  shape.width_log2 = Columns::choose_width_log2(shape, kSlots<T>);
  choose_parts(shape, Columns::blocks(shape), (Columns::kThreads >> shape.width_log2) * kSlots<T>);
  const int64_t count = (args.coupled ? 2 : 3) * args.hidden;
  const Workspace partial(shape.parts() * count * static_cast<int64_t>(sizeof(Acc<T>)));
  launch(peephole_kernel<T>, line_grid<Columns>(shape), Columns::kThreads, 0, shape, args,
         partial.get<Acc<T>>());
  add_partial_sums(partial.get<Acc<T>>(), args.grad_peephole, count, shape.parts());
}

// ---- GRU

template <class T, int N>
__global__ void __launch_bounds__(kThreads) gru_fprop_kernel(GruCellArgs<T> args) {
  using U = Units<T, N>;
  const int64_t hidden = args.hidden, j = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (j >= hidden) return;
  for (int64_t n = blockIdx.y; n < args.n; n += gridDim.y) {
    T* const a = args.gates + n * 3 * hidden + j;
    const T* const b = args.b + n * 3 * hidden + j;
    U r = U::read(a), z = U::read(a + hidden), candidate = U::read(a + 2 * hidden);
    const U b_r = U::read(b), b_z = U::read(b + hidden), b_n = U::read(b + 2 * hidden);
    U h = U::read(args.h + n * hidden + j);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      r.v[e] = sigmoid(r.v[e] + b_r.v[e]), z.v[e] = sigmoid(z.v[e] + b_z.v[e]);
      candidate.v[e] = tanh(candidate.v[e] + r.v[e] * b_n.v[e]);
      h.v[e] = candidate.v[e] + z.v[e] * (h.v[e] - candidate.v[e]);
    }
    r.write(a), z.write(a + hidden), candidate.write(a + 2 * hidden);
    h.write(args.new_h + n * hidden + j);
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads) gru_dgrad_kernel(GruCellArgs<T> args) {
  using A = Acc<T>;
  using U = Units<T, N>;
  const int64_t hidden = args.hidden, j = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (j >= hidden) return;
  for (int64_t n = blockIdx.y; n < args.n; n += gridDim.y) {
    const int64_t row = n * 3 * hidden + j, at = n * hidden + j;
    U r = U::read(args.gates + row), z = U::read(args.gates + row + hidden);
    U candidate = U::read(args.gates + row + 2 * hidden);
    const U b_n = U::read(args.b + row + 2 * hidden), g = U::read(args.grad_new_h + at);
    U h = U::read(args.h + at), of_b;
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const A r_e = r.v[e], z_e = z.v[e], n_e = candidate.v[e];
      const A d_n = g.v[e] * (A(1) - z_e) * (A(1) - n_e * n_e);
      r.v[e] = d_n * b_n.v[e] * slope(r_e);
      z.v[e] = g.v[e] * (h.v[e] - n_e) * slope(z_e);
      candidate.v[e] = d_n, of_b.v[e] = d_n * r_e, h.v[e] = g.v[e] * z_e;
    }
    r.write(args.grad_a + row), r.write(args.grad_b + row);
    z.write(args.grad_a + row + hidden), z.write(args.grad_b + row + hidden);
    candidate.write(args.grad_a + row + 2 * hidden), of_b.write(args.grad_b + row + 2 * hidden);
    h.write(args.grad_h + at);
  }
}

template <class T>
void gru_cell_fprop_fused(const GruCellArgs<T>& args) {
  constexpr int kN = kWide<T>;
  if (args.hidden % kN == 0 && is_wide(args.h, args.gates, args.b, args.new_h))
    launch(gru_fprop_kernel<T, kN>, cell_grid<T>(args.n, args.hidden, kN), kThreads, 0, args);
  else
    launch(gru_fprop_kernel<T, 1>, cell_grid<T>(args.n, args.hidden, 1), kThreads, 0, args);
}

template <class T>
void gru_cell_dgrad_fused(const GruCellArgs<T>& args) {
  constexpr int kN = kWide<T>;
  if (args.hidden % kN == 0 && is_wide(args.h, args.gates, args.b, args.grad_new_h) &&
      is_wide(args.grad_a, args.grad_b, args.grad_h))
    launch(gru_dgrad_kernel<T, kN>, cell_grid<T>(args.n, args.hidden, kN), kThreads, 0, args);
  else
    launch(gru_dgrad_kernel<T, 1>, cell_grid<T>(args.n, args.hidden, 1), kThreads, 0, args);
}

LAMINA_CUDA_INSTANTIATE(lstm_cell_fprop_fused, LstmCellArgs)
LAMINA_CUDA_INSTANTIATE(lstm_cell_dgrad_fused, LstmCellArgs)
LAMINA_CUDA_INSTANTIATE(gru_cell_fprop_fused, GruCellArgs)
LAMINA_CUDA_INSTANTIATE(gru_cell_dgrad_fused, GruCellArgs)

}  // namespace lamina::cuda
