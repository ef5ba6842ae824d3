// AMX's tile registers in plain C++, by the operations of Intel's manual, for processors that have none. A compiler
// reads this before a source (-include), whose intrinsics then call these functions.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#undef _tile_dpbusd
#define _tile_loadconfig tile_model::load_config
#define _tile_release tile_model::release
#define _tile_zero tile_model::zero
#define _tile_loadd tile_model::load
#define _tile_stored tile_model::store
#define _tile_dpbf16ps tile_model::multiply_bfloat16
#define _tile_dpbusd tile_model::multiply_bytes
#define MODEL_OF_TILES

namespace tile_model {

struct Tile {
  int rows = 0, bytes = 0;  // 0: not laid out
  uint8_t data[16][64];
};
struct Registers {
  Tile tiles[8];
};
inline thread_local Registers registers;

[[noreturn]] inline void fault(const char* what) {
  fprintf(stderr, "tiles: %s\n", what);
  abort();
}
inline Tile& at(int number) {
  Tile& tile = registers.tiles[number];
  if (!tile.rows) fault("a register is used that is not laid out");
  return tile;
}
inline void load_config(const void* from) {
  uint8_t layout[64];
  memcpy(layout, from, 64);
  if (layout[0] != 1) fault("palette 1 is the only one");
  for (int i = 1; i < 16; i++)
    if (layout[i]) fault("a reserved byte is not 0");
  for (int i = 0; i < 16; i++) {
    const int rows = layout[48 + i], bytes = layout[16 + 2 * i] | layout[17 + 2 * i] << 8;
    if (i >= 8 && (rows || bytes)) fault("there are eight registers");
    if (rows > 16 || bytes > 64 || !rows != !bytes) fault("a register has 16 rows of 64 bytes at most");
    if (i < 8) registers.tiles[i] = {rows, bytes, {}};
  }
}
inline void release() { registers = {}; }
inline void zero(int to) { memset(at(to).data, 0, sizeof(Tile::data)); }
inline void load(int to, const void* from, int64_t stride) {
  zero(to);
  Tile& tile = at(to);
  for (int i = 0; i < tile.rows; i++) memcpy(tile.data[i], (const char*)from + i * stride, (size_t)tile.bytes);
}
inline void store(int number, void* to, int64_t stride) {
  const Tile& tile = at(number);
  for (int i = 0; i < tile.rows; i++) memcpy((char*)to + i * stride, tile.data[i], (size_t)tile.bytes);
}

inline float flushed(float x) { return x > -1.17549435e-38f && x < 1.17549435e-38f ? 0.0f : x; }
inline float widened(const uint8_t* from) {
  const uint32_t bits = (uint32_t)(from[0] | from[1] << 8) << 16;
  float x;
  memcpy(&x, &bits, 4);
  return flushed(x);
}
// Numbers of either place in their words are added up apart, and then to what was there.
inline void multiply_bfloat16(int to, int left, int right) {
  Tile &c = at(to), &a = at(left), &b = at(right);
  if (a.bytes / 4 != b.rows || a.rows != c.rows || b.bytes != c.bytes) fault("tiles do not fit each other");
  for (int m = 0; m < c.rows; m++)
    for (int n = 0; n < c.bytes / 4; n++) {
      float sums[2] = {}, sum;
      for (int k = 0; k < b.rows; k++)
        for (int i = 0; i < 2; i++)
          sums[i] =
              flushed(__builtin_fmaf(widened(a.data[m] + 4 * k + 2 * i), widened(b.data[k] + 4 * n + 2 * i), sums[i]));
      memcpy(&sum, c.data[m] + 4 * n, 4);
      sum = flushed(flushed(sum) + flushed(sums[0] + sums[1]));
      memcpy(c.data[m] + 4 * n, &sum, 4);
    }
}
inline void multiply_bytes(int to, int left, int right) {
  Tile &c = at(to), &a = at(left), &b = at(right);
  if (a.bytes / 4 != b.rows || a.rows != c.rows || b.bytes != c.bytes) fault("tiles do not fit each other");
  for (int m = 0; m < c.rows; m++)
    for (int n = 0; n < c.bytes / 4; n++) {
      int32_t sum;
      memcpy(&sum, c.data[m] + 4 * n, 4);
      for (int k = 0; k < b.rows; k++)
        for (int i = 0; i < 4; i++) sum += a.data[m][4 * k + i] * (int8_t)b.data[k][4 * n + i];
      memcpy(c.data[m] + 4 * n, &sum, 4);
    }
}

}  // namespace tile_model
