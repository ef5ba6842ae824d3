// Tokens by their bytes, to be walked a byte at a time.
#pragma once
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <numeric>
#include <vector>

// A double array: the child of node n by byte b is n's base ^ b, if n is its parent.
class Trie {
 public:
  void build(const char* bytes, const int64_t* ends, const int32_t* ids, int64_t count) {
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    const auto begin = [&](int64_t i) { return i ? ends[i - 1] : 0; };
    const auto byte = [&](int64_t i, int64_t depth) { return static_cast<unsigned char>(bytes[begin(i) + depth]); };
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      const int64_t sizes[] = {ends[a] - begin(a), ends[b] - begin(b)};
      const int order = memcmp(bytes + begin(a), bytes + begin(b), std::min(sizes[0], sizes[1]));
      return order ? order < 0 : sizes[0] < sizes[1];
    });
    nodes_.assign(256, Node());
    struct Range {
      uint32_t node;
      int64_t first, last, depth;
    };
    std::vector<Range> ranges = {{0, 0, count, 0}}, children;
    while (!ranges.empty()) {
      Range range = ranges.back();
      ranges.pop_back();
      for (; range.first < range.last && ends[order[range.first]] - begin(order[range.first]) == range.depth;
           ++range.first)
        nodes_[range.node].token = ids[order[range.first]];
      children.clear();
      for (int64_t i = range.first; i < range.last;) {
        const int64_t first = i;
        while (i < range.last && byte(order[i], range.depth) == byte(order[first], range.depth)) ++i;
        children.push_back({byte(order[first], range.depth), first, i, range.depth + 1});
      }
      if (children.empty()) continue;
      const uint32_t base = room(children);
      nodes_[range.node].base = base;
      for (Range& child : children) {
        child.node ^= base;
        nodes_[child.node].parent = range.node;
        ranges.push_back(child);
      }
    }
  }

  // The child of a node; 0, which is the root, where there is none.
  uint32_t child(uint32_t node, char byte) const {
    const uint32_t found = nodes_[node].base ^ static_cast<unsigned char>(byte);
    return nodes_[found].parent == node ? found : 0;
  }
  int32_t token(uint32_t node) const { return nodes_[node].token; }

  int32_t find(const char* bytes, int64_t size) const {
    uint32_t node = 0;
    for (int64_t i = 0; i < size; ++i)
      if (!(node = child(node, bytes[i]))) return -1;
    return token(node);
  }

 private:
  struct Node {
    uint32_t base = 0, parent = UINT32_MAX;
    int32_t token = -1;
  };

  bool free(uint32_t place) const { return place && nodes_[place].parent == UINT32_MAX; }

  // A base at which these children, whose nodes are yet their bytes, find free nodes.
  template <class Ranges> uint32_t room(const Ranges& children) {
    while (first_free_ < nodes_.size() && !free(first_free_)) ++first_free_;
    // Nodes far behind are few and scattered: only one child is sure to find one there.
    size_t place = first_free_;
    if (children.size() > 1 && nodes_.size() > place + 4096) place = nodes_.size() - 4096;
    for (;; ++place) {
      if (place == nodes_.size()) nodes_.resize(nodes_.size() + 256);
      const uint32_t base = uint32_t(place) ^ children[0].node;
      if (std::all_of(children.begin(), children.end(), [&](const auto& child) { return free(base ^ child.node); }))
        return base;
    }
  }

  std::vector<Node> nodes_;
  size_t first_free_ = 1;
};
