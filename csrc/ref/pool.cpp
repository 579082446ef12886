// Pooling and unpooling, reference: the definitions of ops/pool.h.
#include "ops/pool.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/instantiate.h"

namespace lamina::ref {
namespace {

using ops::PoolArgs;

struct Position {
  int64_t at[3];
};

template <class T>
Position position(const PoolArgs<T>& args, int64_t flat, bool output) {
  Position p;
  for (int axis = 2; axis >= 0; --axis) {
    const int64_t extent = output ? args.axis[axis].out : args.axis[axis].in;
    p.at[axis] = flat % extent;
    flat /= extent;
  }
  return p;
}

template <class T>
bool covers(const PoolArgs<T>& args, const Position& o, const Position& i) {
  for (int axis = 0; axis < 3; ++axis)
    if (!args.axis[axis].covers(o.at[axis], i.at[axis])) return false;
  return true;
}

template <class T>
double divisor(const PoolArgs<T>& args, const Position& o) {
  double product = 1;
  for (int axis = 0; axis < 3; ++axis)
    product *= static_cast<double>(args.axis[axis].divisor[o.at[axis]]);
  return product;
}

// Calls body(o, i) for every output and every input of its window, inputs in order. The textbook
// test of all pairs: quadratic, and free of the window arithmetic it is there to check.
template <class T, class Body>
void for_each_pair(const PoolArgs<T>& args, Body body) {
  for (int64_t o = 0; o < args.out_size(); ++o)
    for (int64_t i = 0; i < args.in_size(); ++i)
      if (covers(args, position(args, o, true), position(args, i, false))) body(o, i);
}

}  // namespace

template <class T>
void max_pool_fprop_windows(const PoolArgs<T>& args) {
  for (int64_t plane = 0; plane < args.planes; ++plane) {
    const T* x = args.x + plane * args.in_size();
    T* y = args.result + plane * args.out_size();
    std::vector<int64_t> index(static_cast<size_t>(args.out_size()), -1);
    for (int64_t o = 0; o < args.out_size(); ++o) y[o] = -INFINITY;
    for_each_pair(args, [&](int64_t o, int64_t i) {
      int64_t& own = index[static_cast<size_t>(o)];
      if (own < 0 || x[i] > y[o] || (std::isnan(x[i]) && !std::isnan(y[o]))) y[o] = x[i], own = i;
    });
    for (int64_t o = 0; o < args.out_size() && args.index; ++o)
      args.index[plane * args.out_size() + o] = std::max<int64_t>(index[static_cast<size_t>(o)], 0);
  }
}

template <class T>
void max_pool_dgrad_windows(const PoolArgs<T>& args) {
  for (int64_t plane = 0; plane < args.planes; ++plane) {
    std::vector<double> sums(static_cast<size_t>(args.in_size()));
    for (int64_t o = 0; o < args.out_size(); ++o) {
      const int64_t i = args.index[plane * args.out_size() + o];
      sums[static_cast<size_t>(i)] += args.grad_y[plane * args.out_size() + o];
    }
    for (int64_t i = 0; i < args.in_size(); ++i)
      args.result[plane * args.in_size() + i] = static_cast<T>(sums[static_cast<size_t>(i)]);
  }
}

template <class T>
void avg_pool_fprop_windows(const PoolArgs<T>& args) {
  for (int64_t plane = 0; plane < args.planes; ++plane) {
    std::vector<double> sums(static_cast<size_t>(args.out_size()));
    for_each_pair(args, [&](int64_t o, int64_t i) {
      sums[static_cast<size_t>(o)] += args.x[plane * args.in_size() + i];
    });
    for (int64_t o = 0; o < args.out_size(); ++o)
      args.result[plane * args.out_size() + o] =
          static_cast<T>(sums[static_cast<size_t>(o)] / divisor(args, position(args, o, true)));
  }
}

template <class T>
void avg_pool_dgrad_windows(const PoolArgs<T>& args) {
  for (int64_t plane = 0; plane < args.planes; ++plane) {
    std::vector<double> sums(static_cast<size_t>(args.in_size()));
    for_each_pair(args, [&](int64_t o, int64_t i) {
      sums[static_cast<size_t>(i)] +=
          args.grad_y[plane * args.out_size() + o] / divisor(args, position(args, o, true));
    });
    for (int64_t i = 0; i < args.in_size(); ++i)
      args.result[plane * args.in_size() + i] = static_cast<T>(sums[static_cast<size_t>(i)]);
  }
}

template <class T>
void max_unpool_fprop_indices(const ops::UnpoolArgs<T>& args) {
  if ((*args.bad = first_bad_index(args)) >= 0) return;
  for (int64_t i = 0; i < args.planes * args.out_size; ++i) args.result[i] = 0;
  for (int64_t i = 0; i < args.planes * args.in_size; ++i)
    args.result[i / args.in_size * args.out_size + args.index[i]] = args.source[i];
}

template <class T>
void max_unpool_dgrad_indices(const ops::UnpoolArgs<T>& args) {
  if ((*args.bad = first_bad_index(args)) >= 0) return;
  for (int64_t i = 0; i < args.planes * args.in_size; ++i)
    args.result[i] = args.source[i / args.in_size * args.out_size + args.index[i]];
}

LAMINA_INSTANTIATE(max_pool_fprop_windows, PoolArgs)
LAMINA_INSTANTIATE(max_pool_dgrad_windows, PoolArgs)
LAMINA_INSTANTIATE(avg_pool_fprop_windows, PoolArgs)
LAMINA_INSTANTIATE(avg_pool_dgrad_windows, PoolArgs)
LAMINA_INSTANTIATE(max_unpool_fprop_indices, UnpoolArgs)
LAMINA_INSTANTIATE(max_unpool_dgrad_indices, UnpoolArgs)

}  // namespace lamina::ref
