// Where the tokens of a packed batch belong: sequence s of n has those from cu_seqlens[s] up to cu_seqlens[s + 1].
__device__ int sequence_of(const int* cu_seqlens, int n, int token) {
  int low = 0, high = n;  // cu_seqlens[low] <= token < cu_seqlens[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (cu_seqlens[middle] <= token ? low : high) = middle;
  }
  return low;
}

struct Tile {
  int sequence, index;
};

// The tile of `rows` tokens that a slot of the grid takes, looked for by a whole warp. Two launches: a fixed number of
// slots for every sequence, or floor(total / rows) + n slots of which sequence s owns those from
// floor(cu_seqlens[s] / rows) + s on. These are enough for it, and waste one at most.
__device__ Tile tile_of(const int* cu_seqlens, int n, int total, int rows, int slot, int slots, int lane) {
  if (slots != total / rows + n) return {slot / max(slots / n, 1), slot % max(slots / n, 1)};
  int low = 0;
  int high = n;
  while (high - low > 1) {
    const int step = (high - low + 32) / 33;
    const int probe = low + step * (lane + 1);
    const bool reached = probe < high && cu_seqlens[probe] / rows + probe <= slot;
    low += step * __popc(__ballot_sync(0xffffffff, reached));
    high = min(low + step, high);
  }
  return {low, slot - cu_seqlens[low] / rows - low};
}
