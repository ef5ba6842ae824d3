// What the processor has, and the system keeps for a process.
#include "choose.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "threads.h"
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

const Product* built(const Product& product) { return product.name ? &product : nullptr; }

#if defined(__x86_64__)

enum Register { EAX = 0, ECX = 2, EDX = 3 };
bool bit(unsigned leaf, unsigned subleaf, Register place, unsigned number) {
  unsigned registers[4] = {};
  if (!__get_cpuid_count(leaf, subleaf, &registers[0], &registers[1], &registers[2], &registers[3])) return false;
  return registers[place] >> number & 1;
}

// Whether this process may use AMX's tiles. Linux keeps their registers only for those that have asked.
bool tiles() {
#if defined(MODEL_OF_TILES)
  return true;  // a test's, in plain C++
#elif defined(__linux__)
  constexpr unsigned TILE_STATE = 0x60000;
  constexpr long ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18;
  if (!bit(7, 0, EDX, 24) || !bit(1, 0, ECX, 27)) return false;
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & TILE_STATE) == TILE_STATE && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
#else
  return false;
#endif
}
bool tiles_of(unsigned number) {
#if defined(MODEL_OF_TILES)
  return true;
#else
  return bit(7, 0, EDX, number);
#endif
}

// The least nanoseconds of some products of two matrices that stay in a core's cache.
int64_t nanoseconds(const Product& product) {
  constexpr int64_t ROWS = 28, COLUMNS = 64, DEPTH = 384;
  const auto ones = [](size_t count) {
    std::shared_ptr<float> memory(allocate(count), release);
    std::fill_n(memory.get(), count, 1.0f);
    return memory;
  };
  const auto a = ones(ROWS * DEPTH), weight = ones(COLUMNS * DEPTH), b = ones(product.laid_out(COLUMNS, DEPTH));
  const auto c = ones(ROWS * COLUMNS), work = ones(product.scratch(ROWS, DEPTH));
  product.lay_out(weight.get(), COLUMNS, DEPTH, b.get());
  Gemm g = {};
  g.a = a.get(), g.b = b.get(), g.c = c.get();
  g.lda = g.depth = DEPTH, g.ldc = g.n = COLUMNS, g.m = ROWS;
  g.panel_end = (COLUMNS + product.panel - 1) / product.panel;
  int64_t least = INT64_MAX;
  for (int i = 0; i < 8; i++) {
    const auto begin = std::chrono::steady_clock::now();
    product.gemm(g, work.get());
    const auto end = std::chrono::steady_clock::now();
    least = std::min<int64_t>(least, std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count());
  }
  return least;
}
// Whether `vdpbf16ps` is worth its rounding: on Zen 4 and 5 products take half the time of float's, on Sapphire Rapids,
// which splits it up, almost twice as long.
bool pairs_are_fast() {
  static const bool fast = nanoseconds(mlx_embed_avx512_bf16) * 5 < nanoseconds(mlx_embed_avx512.product) * 4;
  return fast;
}

#elif defined(__aarch64__)

enum Feature { DOT, BF16, I8MM };
bool has(Feature feature) {
#if defined(__APPLE__)
  constexpr const char* NAMES[] = {"hw.optional.arm.FEAT_DotProd", "hw.optional.arm.FEAT_BF16",
                                   "hw.optional.arm.FEAT_I8MM"};
  int there = 0;
  size_t size = sizeof(there);
  return sysctlbyname(NAMES[feature], &there, &size, nullptr, 0) == 0 && there;
#elif defined(__linux__)
  constexpr unsigned long ASIMDDP = 1ul << 20, IN_I8MM = 1ul << 13, IN_BF16 = 1ul << 14;  // of the kernel's hwcap.h
  if (feature == DOT) return getauxval(AT_HWCAP) & ASIMDDP;
  return getauxval(AT_HWCAP2) & (feature == BF16 ? IN_BF16 : IN_I8MM);
#else
  return false;
#endif
}

#endif

}  // namespace

Chosen choose(const char* most) {
  [[maybe_unused]] const auto capped = [&](const char* at) { return !strcmp(most, at); };
  Chosen best = {&mlx_embed_baseline, {}, nullptr};
  if (capped("baseline")) return best;
#if defined(__x86_64__)
  // These ask XCR0 too: whether the system keeps the registers. What is below uses no others, but for tiles.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && !capped("avx2") && !capped("avx2_vnni")) {
    best.kernels = &mlx_embed_avx512;
    if (capped("avx512")) return best;
    if (bit(7, 0, ECX, 11)) best.narrow[INT8] = built(mlx_embed_avx512_vnni);
    if (capped("avx512_vnni") || !bit(7, 1, EAX, 5)) return best;
    if (!built(mlx_embed_avx512_bf16)) return best;
    if (capped("avx512_bf16") || pairs_are_fast()) {
      best.narrow[BFLOAT16] = &mlx_embed_avx512_bf16;
      best.halves = &mlx_embed_avx512_bf16_attention;
    }
    if (capped("avx512_bf16") || !best.narrow[INT8] || !tiles()) return best;
    if (built(mlx_embed_amx_bf16) && tiles_of(22)) best.narrow[BFLOAT16] = &mlx_embed_amx_bf16;
    if (built(mlx_embed_amx_int8) && tiles_of(25)) best.narrow[INT8] = &mlx_embed_amx_int8;
  } else if (avx2 && (!*most || capped("avx2") || capped("avx2_vnni"))) {
    best.kernels = &mlx_embed_avx2;
    if (!capped("avx2") && bit(7, 1, EAX, 4)) best.narrow[INT8] = built(mlx_embed_avx2_vnni);
  }
#elif defined(__aarch64__)
  if (has(DOT)) best.narrow[INT8] = built(mlx_embed_neon_dot);
  if (has(BF16)) best.narrow[BFLOAT16] = built(mlx_embed_neon_bf16);
  if (best.narrow[BFLOAT16]) best.halves = &mlx_embed_neon_bf16_attention;
  if (capped("neon_dot")) return best;
  if (has(I8MM) && best.narrow[INT8] && built(mlx_embed_neon_smmla)) best.narrow[INT8] = &mlx_embed_neon_smmla;
  // BFMMLA came with BF16.
  if (best.narrow[BFLOAT16] && built(mlx_embed_neon_bfmmla)) best.narrow[BFLOAT16] = &mlx_embed_neon_bfmmla;
#endif
  return best;
}
