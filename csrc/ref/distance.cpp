// Distances between rows, reference: the formulas of ops/distance.h.
#include "ops/distance.h"

#include <cmath>

#include "ops/instantiate.h"

namespace lamina::ref {

template <class T>
void pdist_fprop_pairs(const ops::PdistArgs<T>& args) {
  for (int64_t i = 0; i < args.n; ++i)
    for (int64_t j = i + 1; j < args.n; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < args.d; ++k) {
        const double difference = double(args.x[i * args.d + k]) - double(args.x[j * args.d + k]);
        sum += args.euclidean ? difference * difference : std::fabs(difference);
      }
      args.result[ops::pair_place(args.n, i, j)] =
          static_cast<T>(args.euclidean ? std::sqrt(sum) : sum);
    }
}

template <class T>
void pdist_dgrad_pairs(const ops::PdistArgs<T>& args) {
  for (int64_t i = 0; i < args.n; ++i)
    for (int64_t k = 0; k < args.d; ++k) {
      double sum = 0;
      for (int64_t j = 0; j < args.n; ++j) {
        if (j == i) continue;
        const int64_t at = i < j ? ops::pair_place(args.n, i, j) : ops::pair_place(args.n, j, i);
        const double difference = double(args.x[i * args.d + k]) - double(args.x[j * args.d + k]);
        if (!args.euclidean)
          sum += args.grad_y[at] *
                 (std::isnan(difference) ? difference : (difference > 0) - (difference < 0));
        else if (args.y[at] != 0)
          sum += double(args.grad_y[at]) / double(args.y[at]) * difference;
      }
      args.result[i * args.d + k] = static_cast<T>(sum);
    }
}

namespace {

using ops::RowDistance;
using ops::RowDistanceArgs;

// e of element i.
template <class T>
double difference(const RowDistanceArgs<T>& args, int64_t i) {
  const T apart = args.a[i] - args.b[i];
  return apart + static_cast<T>(args.eps);
}

// What a product of two rows is divided by for either.
double divisor(RowDistance kind, double squares, double eps) {
  if (kind == RowDistance::shifted) return std::sqrt(squares + eps);
  return std::sqrt(squares) < eps ? eps : std::sqrt(squares);
}

template <class T>
double distance(const RowDistanceArgs<T>& args, int64_t row) {
  double sum = 0, most = 0, squares[2] = {};
  for (int64_t i = row * args.d; i < (row + 1) * args.d; ++i) {
    const double a = args.a[i], b = args.b[i], size = std::fabs(difference(args, i));
    if (ops::is_cosine(args.kind))
      sum += a * b, squares[0] += a * a, squares[1] += b * b;
    else
      sum += args.kind == RowDistance::absolute    ? size
             : args.kind == RowDistance::euclidean ? size * size
                                                   : std::pow(size, args.p);
    if (size > most || std::isnan(size)) most = size;
  }
  if (args.kind == RowDistance::absolute) return sum;
  if (args.kind == RowDistance::euclidean) return std::sqrt(sum);
  if (args.kind == RowDistance::power) return std::pow(sum, 1 / args.p);
  if (args.kind == RowDistance::largest) return most;
  args.squares[row] = squares[0], args.squares[args.rows + row] = squares[1];
  return sum /
         (divisor(args.kind, squares[0], args.eps) * divisor(args.kind, squares[1], args.eps));
}

// The gradient of a's element i, but for the factor grad_y; of cosines that of b with the two
// exchanged. largest: how many elements are as large as y.
template <class T>
double slope(const RowDistanceArgs<T>& args, int64_t row, int64_t i, bool of_b, int64_t largest) {
  const double eps = args.eps;
  if (ops::is_cosine(args.kind)) {
    const double x = (of_b ? args.b : args.a)[i], other = (of_b ? args.a : args.b)[i];
    const double squares[] = {args.squares[row], args.squares[args.rows + row]},
                 own = squares[of_b];
    const bool shifted = args.kind == RowDistance::shifted;
    const double across = divisor(args.kind, squares[0], eps) * divisor(args.kind, squares[1], eps);
    const bool fixed = !shifted && (own == 0 || std::sqrt(own) < eps);
    return other / across - (fixed ? 0 : x * args.y[row] / (shifted ? own + eps : own));
  }
  const double e = difference(args, i), y = args.y ? double(args.y[row]) : 0;
  const double sign = std::isnan(e) ? e : (e > 0) - (e < 0);
  double value = sign;
  if (args.kind == RowDistance::euclidean) value = y == 0 ? 0 : e / y;
  if (args.kind == RowDistance::power)
    value = y == 0 || e == 0 ? 0 : sign * std::pow(std::fabs(e) / y, args.p - 1);
  if (args.kind == RowDistance::largest)
    value = std::fabs(e) == y ? sign / static_cast<double>(largest) : std::isnan(e) ? e : 0;
  return of_b ? -value : value;
}

}  // namespace

template <class T>
void row_distance_fprop_rows(const RowDistanceArgs<T>& args) {
  for (int64_t row = 0; row < args.rows; ++row) args.y[row] = static_cast<T>(distance(args, row));
}

template <class T>
void row_distance_dgrad_rows(const RowDistanceArgs<T>& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t begin = row * args.d, end = begin + args.d;
    const double g = args.grad_y[row];
    int64_t largest = 0;
    if (args.kind == RowDistance::largest)
      for (int64_t i = begin; i < end; ++i)
        largest += std::fabs(difference(args, i)) == args.y[row];
    for (int64_t i = begin; i < end; ++i) {
      if (args.grad_a) args.grad_a[i] = static_cast<T>(g * slope(args, row, i, false, largest));
      if (args.grad_b) args.grad_b[i] = static_cast<T>(g * slope(args, row, i, true, largest));
    }
  }
}

LAMINA_INSTANTIATE(pdist_fprop_pairs, PdistArgs)
LAMINA_INSTANTIATE(pdist_dgrad_pairs, PdistArgs)
LAMINA_INSTANTIATE(row_distance_fprop_rows, RowDistanceArgs)
LAMINA_INSTANTIATE(row_distance_dgrad_rows, RowDistanceArgs)

}  // namespace lamina::ref
