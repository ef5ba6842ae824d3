// A thread keeps the greatest of one column over the tokens of one sequence. Template: COLUMNS.
const int column = int(thread_position_in_grid.x);
const int sequence = int(thread_position_in_grid.y);
if (column < COLUMNS) {
  float greatest = -INFINITY;
  for (int token = cu_seqlens[sequence]; token < cu_seqlens[sequence + 1]; ++token) {
    greatest = greatest_of(greatest, float(products[size_t(token) * COLUMNS + column]));
  }
  out[size_t(sequence) * COLUMNS + column] = greatest;
}
