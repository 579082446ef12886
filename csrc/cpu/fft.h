// Two-dimensional Fourier transforms of real tiles, one tile a vector lane.
//
// Source  Cooley & Tukey 1965, radix 2, decimation in time, in place. Sides 1 to 64.
// Layout  a real tile is [height][width] vectors; its transform keeps the columns up to width / 2
//         of [height][half] (the others are conjugates), real and imaginary parts apart.
#pragma once

#include "cpu/scratch.h"
#include "cpu/simd.h"
#include "shared/fft_tiles.h"

LAMINA_CPU_NAMESPACE_BEGIN

template <class T>
class TileFft {
 public:
  TileFft(int64_t height, int64_t width)
      : height_(height),
        width_(width),
        half_(width == 1 ? 1 : width / 2 + 1),
        line_(2 * kLanes<T> * width) {
    for (int64_t k = 0; k < kLargestFft / 2; ++k) {
      const double angle = -2 * 3.14159265358979323846 * static_cast<double>(k) / kLargestFft;
      cos_[k] = static_cast<T>(__builtin_cos(angle)),
      sin_[k] = static_cast<T>(__builtin_sin(angle));
    }
  }

  // re, im [height][half] = transform of tile [height][width].
  void forward(const Vec<T>* tile, Vec<T>* re, Vec<T>* im) {
    Vec<T>*row_re = line(), *row_im = row_re + width_;
    for (int64_t h = 0; h < height_; ++h) {
      for (int64_t w = 0; w < width_; ++w) row_re[w] = tile[h * width_ + w], row_im[w] = Vec<T>{};
      transform(width_, row_re, row_im, 1);
      for (int64_t w = 0; w < half_; ++w)
        re[h * half_ + w] = row_re[w], im[h * half_ + w] = row_im[w];
    }
    for (int64_t w = 0; w < half_; ++w) transform(height_, re + w, im + w, half_);
  }

  // tile [height][width] = inverse transform, times height * width; re and im are overwritten.
  void inverse(Vec<T>* re, Vec<T>* im, Vec<T>* tile) {
    // The inverse is the transform with the parts swapped.
    for (int64_t w = 0; w < half_; ++w) transform(height_, im + w, re + w, half_);
    Vec<T>*row_re = line(), *row_im = row_re + width_;
    for (int64_t h = 0; h < height_; ++h) {
      for (int64_t w = 0; w < half_; ++w)
        row_re[w] = re[h * half_ + w], row_im[w] = im[h * half_ + w];
      for (int64_t w = half_; w < width_; ++w)
        row_re[w] = re[h * half_ + width_ - w], row_im[w] = -im[h * half_ + width_ - w];
      transform(width_, row_im, row_re, 1);
      for (int64_t w = 0; w < width_; ++w) tile[h * width_ + w] = row_re[w];
    }
  }

 private:
  Vec<T>* line() { return reinterpret_cast<Vec<T>*>(line_.get()); }

  void transform(int64_t n, Vec<T>* re, Vec<T>* im, int64_t step) const {
    for (int64_t i = 1, j = 0; i < n; ++i) {  // bit reversal
      int64_t bit = n / 2;
      for (; j & bit; bit /= 2) j -= bit;
      j += bit;
      if (i < j) {
        const Vec<T> a = re[i * step], b = im[i * step];
        re[i * step] = re[j * step], im[i * step] = im[j * step];
        re[j * step] = a, im[j * step] = b;
      }
    }
    for (int64_t length = 1; length < n; length *= 2)
      for (int64_t k = 0; k < length; ++k) {
        const T c = cos_[k * (kLargestFft / 2 / length)], s = sin_[k * (kLargestFft / 2 / length)];
        for (int64_t i = k; i < n; i += 2 * length) {
          Vec<T>&ar = re[i * step], &ai = im[i * step];
          Vec<T>&br = re[(i + length) * step], &bi = im[(i + length) * step];
          const Vec<T> tr = c * br - s * bi, ti = c * bi + s * br;
          br = ar - tr, bi = ai - ti;
          ar = ar + tr, ai = ai + ti;
        }
      }
  }

  int64_t height_, width_, half_;
  Scratch<T> line_;
  T cos_[kLargestFft / 2], sin_[kLargestFft / 2];
};

LAMINA_CPU_NAMESPACE_END
