// A thread finds the sequence of one token among n[0] of them: cu_seqlens[low] <= token < cu_seqlens[high].
const int token = int(thread_position_in_grid.x);
int low = 0;
int high = n[0];
while (high - low > 1) {
  const int middle = (low + high) / 2;
  if (cu_seqlens[middle] <= token) {
    low = middle;
  } else {
    high = middle;
  }
}
out[token] = token - cu_seqlens[low];
