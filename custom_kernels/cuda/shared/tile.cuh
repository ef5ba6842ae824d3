// A tile of a product on Hopper, x [total, K] times the transpose of w [N, K]: ROWS of x, GROUP_ROWS for each of GROUPS
// warpgroups, and COLUMNS of w, whose products come from DEPTHS times 64 columns of both.
constexpr int GROUP_ROWS = 64;
constexpr int ROWS = GROUPS * GROUP_ROWS;
constexpr int DEPTHS = K / 64;
constexpr int SPANS = N / COLUMNS;
constexpr int SUMS = COLUMNS / 2;            // of a thread: for each 8 columns two in its row, two in the row 8 below
constexpr int THREADS = (GROUPS + 1) * 128;  // one warpgroup fetches
