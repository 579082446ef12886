// Regions of interest: RoI pool (Girshick 2015), RoI align (He et al. 2017), greedy non-maximum
// suppression. Semantics of torchvision.ops; bins along an axis in shared/roi.h.
//
//   rois[k] = (image, x1, y1, x2, y2) in units of 1 / scale
//   roi_pool   y[k][c][p][q] = max of x over the bin, index its first position in the plane; 0 and
//              -1 for an empty bin. NaN wins.
//   roi_align  y[k][c][p][q] = mean of the bin's bilinear samples: rows^T x columns
// dgrad adds into each plane of grad_x from its boxes, in their order.
// `bad` gets the first box whose image is outside the batch or that is not finite, or -1; then
// nothing is written.
#pragma once

#include <cstdint>

namespace lamina::ops {

template <class T>
struct RoiArgs {
  int64_t n = 0, c = 0, h = 0, w = 0;
  int64_t boxes = 0, bins_h = 0, bins_w = 0;
  double scale = 1;
  int64_t sampling_ratio = -1;  // roi_align
  bool aligned = false;         // roi_align
  const T* rois = nullptr;      // [boxes][5]
  const T* x = nullptr;         // fprop: [n][c][h][w]
  const T* grad_y = nullptr;    // dgrad: [boxes][c][bins_h][bins_w]
  T* result = nullptr;          // y or grad_x
  int64_t* index = nullptr;     // roi_pool, like y: fprop writes, dgrad reads
  int64_t* bad = nullptr;

  constexpr int64_t image(int64_t box) const { return static_cast<int64_t>(rois[box * 5]); }
  constexpr int64_t plane() const { return h * w; }
  constexpr int64_t bins() const { return bins_h * bins_w; }
};

template <class T>
constexpr int64_t first_bad_box(const RoiArgs<T>& args) {
  for (int64_t box = 0; box < args.boxes; ++box) {
    const T* roi = args.rois + box * 5;
    bool good = roi[0] >= 0 && roi[0] < static_cast<T>(args.n);
    for (int i = 1; i < 5; ++i) good &= roi[i] - roi[i] == 0;  // finite
    if (!good) return box;
  }
  return -1;
}

// nms: keep[i] = 1 unless a kept box before i overlaps it by more than `threshold` (intersection
// over union, in double). The boxes (x1, y1, x2, y2) come by falling score.
template <class T>
struct NmsArgs {
  int64_t n = 0;
  double threshold = 0;
  const T* boxes = nullptr;  // [n][4]
  uint8_t* keep = nullptr;   // [n]
};

}  // namespace lamina::ops
