// In which order clusters of blocks take the tiles of a product, ROWS a block and CLUSTER blocks below each other, in
// SPANS across: so many rows of clusters take turns that the cache has their x.
struct Order {
  static constexpr int NEAR = 4096 / ROWS / CLUSTER;
  int heights;

  __device__ explicit Order(int total) : heights((total + ROWS * CLUSTER - 1) / (ROWS * CLUSTER)) {}

  __device__ int tiles() const { return heights * SPANS; }
  __device__ int first_row(int tile, int rank) const {
    const int begin = tile / (NEAR * SPANS) * NEAR, high = min(heights - begin, NEAR);
    return ((begin + tile % (NEAR * SPANS) % high) * CLUSTER + rank) * ROWS;
  }
  __device__ int span(int tile) const {
    return tile % (NEAR * SPANS) / min(heights - tile / (NEAR * SPANS) * NEAR, NEAR);
  }
};
