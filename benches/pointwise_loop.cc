// What a processor with AVX-512 makes of a pointwise convolution in a loop written for it: the register tile, the blocking and the
// prefetches of this project's executables, without a compiler of its own between. docs/measurements.md compares with it.
//
//   g++ -O3 -march=native -std=c++17 -fno-tree-vectorize benches/pointwise_loop.cc -o target/pointwise_loop
//   target/pointwise_loop CHANNELS OUTPUTS POSITIONS BLOCK SECONDS
//
// BLOCK positions are computed for all outputs before the next ones; outputs are a multiple of 64. Operands and results are taken
// out of the caches before each pass, as they are in a step of a large network. It prints giga multiply-adds a second of the best
// pass, of the median one, and of multiply-adds of registers alone in the best millisecond between passes.
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

constexpr int PIXELS = 6, VECTORS = 4, LANES = 16;
constexpr long OUTPUTS_OF_TILE = VECTORS * LANES;

static double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <int ROWS>
static void tile(const float *x, const float *w, float *y, long channels, long outputs) {
  __m512 sums[ROWS][VECTORS];
  for (auto &row : sums)
    for (auto &sum : row) sum = _mm512_setzero_ps();
  for (long c = 0; c < channels; c += 4) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; u++) {
      __m512 weights[VECTORS];
      for (int v = 0; v < VECTORS; v++) weights[v] = _mm512_loadu_ps(w + v * channels * LANES + (c + u) * LANES);
      for (int r = 0; r < ROWS; r++) {
        __m512 element = _mm512_set1_ps(x[r * channels + c + u]);
        for (int v = 0; v < VECTORS; v++) sums[r][v] = _mm512_fmadd_ps(element, weights[v], sums[r][v]);
      }
    }
    // The next tile's elements, and once where the results go.
    for (int r = (c >> 2) & 3; r < ROWS; r += 4) _mm_prefetch((const char *)(x + (ROWS + r) * channels + c), _MM_HINT_T0);
    if (c >> 2 < ROWS)
      for (int v = 0; v < VECTORS; v++) __builtin_prefetch(y + (c >> 2) * outputs + v * LANES, 1, 3);
  }
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(y + r * outputs + v * LANES, sums[r][v]);
}

using Tile = void (*)(const float *, const float *, float *, long, long);
constexpr Tile TILES[] = {nullptr, tile<1>, tile<2>, tile<3>, tile<4>, tile<5>, tile<6>};

static float *allocate(long count) {
  const long huge = 2 << 20, bytes = (count * 4 + huge) / huge * huge;
  float *p = (float *)std::aligned_alloc(huge, bytes);
  if (!p) std::abort();
  madvise(p, bytes, MADV_HUGEPAGE);
  std::fill(p, p + bytes / 4, 0.5f);
  return p;
}

static double registers_alone() {
  const long turns = 100000;
  double start = now();
  __m512 sums[20];
  for (auto &sum : sums) sum = _mm512_setzero_ps();
  __m512 a = _mm512_set1_ps(0.5f), b = a;
  for (long i = 0; i < turns; i++) {
#pragma GCC unroll 20
    for (int s = 0; s < 20; s++) sums[s] = _mm512_fmadd_ps(a, b, sums[s]);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (auto &sum : sums) asm volatile("" : : "v"(sum));
  return turns * 20.0 * LANES / (now() - start) / 1e9;
}

int main(int count, char **words) {
  if (count != 6) return std::fputs("CHANNELS OUTPUTS POSITIONS BLOCK SECONDS\n", stderr), 2;
  const long channels = std::atol(words[1]), outputs = std::atol(words[2]), positions = std::atol(words[3]);
  const long block = std::atol(words[4]);
  const double seconds = std::atof(words[5]);
  if (channels < 4 || channels % 4 || outputs < OUTPUTS_OF_TILE || outputs % OUTPUTS_OF_TILE || positions < 1 || block < 1)
    return std::fputs("channels are a multiple of 4, outputs of 64\n", stderr), 2;
  float *x = allocate((positions + PIXELS) * channels), *w = allocate(outputs * channels);
  float *y = allocate((positions + PIXELS) * outputs), *others = allocate(20 << 20);
  std::vector<double> rates;
  double peak = 0;
  for (double start = now(); now() - start < seconds;) {
    for (long i = 0; i < 20 << 20; i += 16) others[i] += 1;
    peak = std::max(peak, registers_alone());
    double begin = now();
    for (long first = 0; first < positions; first += block)
      for (long k = 0; k < outputs; k += OUTPUTS_OF_TILE)
        for (long p = first, end = std::min(positions, first + block); p < end; p += PIXELS)
          TILES[std::min<long>(PIXELS, end - p)](x + p * channels, w + k * channels, y + p * outputs + k, channels, outputs);
    rates.push_back(1e-9 * positions * outputs * channels / (now() - begin));
  }
  std::sort(rates.begin(), rates.end());
  std::printf("%.1f best, %.1f median, of %.1f\n", rates.back(), rates[rates.size() / 2], peak);
}
