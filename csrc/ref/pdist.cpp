// Distances between rows, reference: the formulas of ops/pdist.h.
#include "ops/pdist.h"

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

LAMINA_INSTANTIATE(pdist_fprop_pairs, PdistArgs)
LAMINA_INSTANTIATE(pdist_dgrad_pairs, PdistArgs)

}  // namespace lamina::ref
