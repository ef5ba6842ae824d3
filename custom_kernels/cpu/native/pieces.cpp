// The ids of texts, put together from those of their pieces: a text is cut before spaces, and what a tokenizer has made
// of a piece is remembered. Python asks the tokenizer for pieces that are new, and says what they are: `learn`.
//
// A piece ends before a space, or the end of a line, that follows a character which is surely none of white space, and
// which nothing turns into white space. So a run of white space is in one piece, with the word behind it.
#include "subwords.h"

#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <new>
#include <mutex>
#include <shared_mutex>
#include <system_error>
#include <string>
#include <thread>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// Ends of lines that begin a piece: those behind a letter or number of ASCII, or behind anything but white space.
enum Lines { NO_LINES = 0, SOME_LINES = 1, ALL_LINES = 2 };

constexpr int64_t LONGEST = 256;   // bytes of a piece that is remembered
constexpr uint32_t LEFT = 0xffff;  // instead of a number of ids: texts with this piece are the tokenizer's
constexpr int64_t SHORT = 48;      // bytes of a piece that is remembered though it is known by rules
constexpr int64_t LOOK_UP = 32;
constexpr int64_t SHARE = 1 << 16;  // bytes that are worth a thread
constexpr int64_t NEW_PIECES = -1, NO_ROOM = -2, NO_MEMORY = -3;

// Pieces by their bytes. A record in `words`: its bytes and its ids counted, the ids, then the bytes.
class Table {
 public:
  Table() : slots_(1 << 12) { words_.push_back(0); }

  // The record of a piece, or null.
  const uint32_t* find(const char* piece, int64_t size, uint64_t hash) const {
    for (uint64_t place = hash & (slots_.size() - 1);; place = (place + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[place];
      if (slot.record == 0) return nullptr;
      if (slot.tag != uint32_t(hash >> 32)) continue;
      const uint32_t* record = &words_[slot.record];
      if (record[0] == uint32_t(size) && memcmp(record + 2 + stored(record[1]), piece, size) == 0) return record;
    }
  }

  void add(const char* piece, int64_t size, uint64_t hash, const int32_t* ids, uint32_t count) {
    if (find(piece, size, hash)) return;
    if (2 * (++count_) > slots_.size()) grow();
    const uint32_t record = uint32_t(words_.size());
    words_.push_back(uint32_t(size));
    words_.push_back(count);
    words_.insert(words_.end(), ids, ids + stored(count));
    words_.resize(words_.size() + (size + 3) / 4);
    memcpy(&words_[record + 2 + stored(count)], piece, size);
    place({uint32_t(hash >> 32), record}, hash);
  }

  size_t size() const { return count_; }

  static uint64_t hash(const char* piece, int64_t size) {
    uint64_t state = 0x9e3779b97f4a7c15ull ^ uint64_t(size);
    for (; size > 0; piece += 8, size -= 8) {
      uint64_t next = 0;
      memcpy(&next, piece, size < 8 ? size : 8);
      state = (state ^ next) * 0xff51afd7ed558ccdull;
      state ^= state >> 32;
    }
    state *= 0xc4ceb9fe1a85ec53ull;
    return state ^ (state >> 29);
  }

 private:
  struct Slot {
    uint32_t tag = 0, record = 0;
  };

  static uint32_t stored(uint32_t count) { return count == LEFT ? 0 : count; }

  void place(Slot slot, uint64_t hash) {
    uint64_t place = hash & (slots_.size() - 1);
    while (slots_[place].record) place = (place + 1) & (slots_.size() - 1);
    slots_[place] = slot;
  }

  void grow() {
    std::vector<Slot> before(2 * slots_.size());
    before.swap(slots_);
    for (const Slot& slot : before) {
      if (!slot.record) continue;
      const uint32_t* record = &words_[slot.record];
      place(slot, hash(reinterpret_cast<const char*>(record + 2 + stored(record[1])), record[0]));
    }
  }

  std::vector<Slot> slots_;
  std::vector<uint32_t> words_;
  size_t count_ = 0;
};

struct Memory {
  std::shared_mutex mutex;
  Table table;
  std::vector<int32_t> before, after;
  size_t capacity;
  Lines lines;
  const Subwords* rules;  // null where only the tokenizer knows them
};

// Whether a character, by its last three bytes, is white space, a control character, or what some normalizer makes a
// space of, or nothing, with its neighbours: U+0080 to U+00BF, U+061C, U+1680, U+2000 to U+207F, U+2581, U+3000 to
// U+303F, U+FEC0 to U+FEFF, U+FFFD.
bool blank(unsigned char third, unsigned char second, unsigned char last) {
  if (last < 0x80) return last <= 0x20 || last == 0x7f;
  if (second == 0xc2) return true;
  if (second == 0xd8) return last == 0x9c;
  if (third == 0xe1) return second == 0x9a;
  if (third == 0xe2) return second == 0x80 || second == 0x81 || second == 0x96;
  if (third == 0xe3) return second == 0x80;
  return third == 0xef && (second == 0xbb || second == 0xbf);
}

// Whether no mark that goes with the character in front of it has this first byte: Latin, Greek and Cyrillic letters,
// most ideographs and syllables.
bool letter(unsigned char first) {
  return (first >= 0xc3 && first <= 0xcb) || (first >= 0xce && first <= 0xd1) || (first >= 0xe4 && first <= 0xe9) ||
         first == 0xeb || first == 0xec;
}

// Whether a space behind this byte may begin a piece: behind nothing blank. A normalizer may take a mark away with the
// blank that it stands on, so what marks stand on counts too.
bool plain(const char* text, const char* space) {
  const auto at = [&](int back) { return space - back >= text ? static_cast<unsigned char>(space[-back]) : 0; };
  while (at(1) >= 0x80) {
    if (blank(at(3), at(2), at(1))) return false;
    do --space;
    while (at(0) < 0xc0 && space > text);
    if (letter(at(0))) return true;
  }
  return !blank(0, 0, at(1));
}

// Whether a piece may begin here, behind the text's first byte.
bool begins(const char* text, const char* at, Lines lines) {
  if (*at == ' ') return plain(text, at);
  if (*at != '\n' || lines == NO_LINES) return false;
  if (lines == ALL_LINES) return plain(text, at);
  const char last = at[-1] | 32;  // small, if it is a letter
  return (last >= 'a' && last <= 'z') || (at[-1] >= '0' && at[-1] <= '9');
}

// Calls `piece(begin, size)` for each of a text, as long as that says true; the first is there even of no text.
template <class Piece> void pieces(const char* text, const char* end, Lines lines, Piece piece) {
  const char* begin = text;
  do {
    const char* stop = begin + 1;
    while (stop < end && !((*stop == ' ' || *stop == '\n') && begins(text, stop, lines))) ++stop;
    stop = std::min(stop, end);
    if (!piece(begin, stop - begin)) return;
    begin = stop;
  } while (begin < end);
}

struct Texts {
  const char* bytes;
  std::vector<int64_t> starts;  // and one behind the last text's end

  // Texts with a zero behind each but the last; of another number there are none.
  Texts(const char* bytes, int64_t size, int64_t count) : bytes(bytes) {
    starts.reserve(count + 1);
    starts.push_back(0);
    for (const char* at = bytes; (at = static_cast<const char*>(memchr(at, 0, bytes + size - at)));)
      starts.push_back(++at - bytes);
    starts.push_back(size + 1);
    if (int64_t(starts.size()) != count + 1) starts.clear();
  }
  const char* begin(int64_t i) const { return bytes + starts[i]; }
  const char* end(int64_t i) const { return bytes + starts[i + 1] - 1; }
};

// The ids of texts [first, last), end to end, and how many of each; -1 of one that is left to the tokenizer.
class Part {
 public:
  Part(int64_t first, int64_t last) : first(first), last(last) {}
  int64_t first, last;
  std::vector<int32_t> ids;
  bool known = true, memory_short = false;
  struct Made {
    const char* piece;
    int64_t size;
    size_t first, count;
  };
  std::vector<Made> made;  // what is new, and to be remembered: where its ids are

  void read(const Memory& memory, const Texts& texts, int64_t* lengths) {
    try {
      put(memory, texts, lengths);
    } catch (const std::bad_alloc&) {
      memory_short = true;
    }
  }

 private:
  void put(const Memory& memory, const Texts& texts, int64_t* lengths) {
    for (int64_t i = first; i < last && known; ++i) {
      const size_t start = ids.size();
      bool left = false;
      ids.insert(ids.end(), memory.before.begin(), memory.before.end());
      pieces(texts.begin(i), texts.end(i), memory.lines, [&](const char* piece, int64_t size) {
        const uint32_t* record = size > LONGEST ? nullptr : memory.table.find(piece, size, Table::hash(piece, size));
        if (!record) {
          const size_t first = ids.size();
          if (memory.rules && put_subwords(*memory.rules, piece, size, ids)) {
            if (size <= SHORT) made.push_back({piece, size, first, ids.size() - first});
            return true;
          }
          if (size > LONGEST) return !(left = true);
          return known = false;
        }
        if (record[1] == LEFT) return !(left = true);
        const int32_t* found = reinterpret_cast<const int32_t*>(record + 2);
        ids.insert(ids.end(), found, found + record[1]);
        return true;
      });
      ids.insert(ids.end(), memory.after.begin(), memory.after.end());
      if (left) {
        ids.resize(start);
        while (!made.empty() && made.back().first >= start) made.pop_back();
      }
      lengths[i] = left ? -1 : int64_t(ids.size() - start);
    }
  }
};

// Remembers what rules have made.
void remember(Memory& memory, const std::vector<Part>& parts) {
  if (std::all_of(parts.begin(), parts.end(), [](const Part& part) { return part.made.empty(); })) return;
  std::unique_lock<std::shared_mutex> lock(memory.mutex);
  for (const Part& part : parts)
    for (const Part::Made& made : part.made) {
      if (memory.table.size() >= memory.capacity) memory.table = Table();
      const uint64_t hash = Table::hash(made.piece, made.size);
      memory.table.add(made.piece, made.size, hash, &part.ids[made.first], uint32_t(made.count));
    }
}

}  // namespace

// A memory of about so many pieces; before and after are the ids that stand around each text, `lines` is of Lines.
// `rules` are of mlx_embed_subwords_new, or null; they have to stay as long as the memory.
EXPORT void* mlx_embed_pieces_new(int64_t capacity, int lines, const int32_t* before, int64_t n_before,
                                  const int32_t* after, int64_t n_after, const void* rules) {
  try {
    auto memory = std::make_unique<Memory>();
    memory->capacity = size_t(capacity);
    memory->lines = Lines(lines);
    memory->rules = static_cast<const Subwords*>(rules);
    memory->before.assign(before, before + n_before);
    memory->after.assign(after, after + n_after);
    return memory.release();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

EXPORT void mlx_embed_pieces_delete(void* memory) { delete static_cast<Memory*>(memory); }

// The ids of `count` texts, which stand in `bytes` with a zero between two, into flat [room], how many of each into
// lengths [count + 1], or -1, and where each begins into offsets [count + 1]. Behind the lengths stands how many texts
// have -1. Returns how many ids there are in all; NEW_PIECES where some are yet to be learnt, NO_ROOM where there are
// more than `room`, and then how many as lengths[0].
EXPORT int64_t mlx_embed_pieces_read(void* handle, const char* bytes, int64_t size, int64_t count, int64_t threads,
                                     int64_t* lengths, int64_t* offsets, int32_t* flat, int64_t room) {
  try {
    Memory& memory = *static_cast<Memory*>(handle);
    const Texts texts(bytes, size, count);
    if (texts.starts.empty()) return NO_MEMORY;
    std::vector<Part> parts;
    const int64_t share = size / std::max<int64_t>(1, std::min(threads, size / SHARE)) + 1;
    for (int64_t i = 0; i < count;) {
      int64_t last = i + 1;
      while (last < count && texts.starts[last] - texts.starts[i] < share) ++last;
      parts.emplace_back(i, last);
      parts.back().ids.reserve((texts.starts[last] - texts.starts[i]) / 3 + 16);
      i = last;
    }
    {
      std::shared_lock<std::shared_mutex> lock(memory.mutex);
      std::vector<std::thread> others;
      for (size_t i = 1; i < parts.size(); ++i) {
        try {
          others.emplace_back([&, i] { parts[i].read(memory, texts, lengths); });
        } catch (const std::system_error&) {
          parts[i].read(memory, texts, lengths);
        }
      }
      parts[0].read(memory, texts, lengths);
      for (std::thread& other : others) other.join();
    }
    remember(memory, parts);
    int64_t total = 0;
    for (const Part& part : parts) {
      if (part.memory_short) return NO_MEMORY;
      if (!part.known) return NEW_PIECES;
      total += int64_t(part.ids.size());
    }
    if (total > room) {
      lengths[0] = total;
      return NO_ROOM;
    }
    for (const Part& part : parts) {
      if (!part.ids.empty()) memcpy(flat, part.ids.data(), part.ids.size() * sizeof(int32_t));
      flat += part.ids.size();
    }
    lengths[count] = std::count(lengths, lengths + count, -1);
    offsets[0] = 0;
    for (int64_t i = 0; i < count; ++i) offsets[i + 1] = offsets[i] + std::max<int64_t>(lengths[i], 0);
    return total;
  } catch (const std::bad_alloc&) {
    return NO_MEMORY;
  }
}

// Where pieces stand in `bytes` that are not known, each once, into starts and stops [room]. To ask the tokenizer for
// one costs about what LOOK_UP bytes of a text do, and its own. Returns how many there are, up to where that is more
// than `budget` in all, and then NEW_PIECES less their number: there are more.
EXPORT int64_t mlx_embed_pieces_unknown(void* handle, const char* bytes, int64_t size, int64_t count, int64_t budget,
                                        int64_t* starts, int64_t* stops, int64_t room) {
  try {
    Memory& memory = *static_cast<Memory*>(handle);
    const Texts texts(bytes, size, count);
    Table seen;
    std::vector<int32_t> ids;
    int64_t found = 0;
    bool more = false;
    std::shared_lock<std::shared_mutex> lock(memory.mutex);
    for (int64_t i = 0; i + 1 < int64_t(texts.starts.size()) && !more; ++i)
      pieces(texts.begin(i), texts.end(i), memory.lines, [&](const char* piece, int64_t length) {
        const uint64_t hash = Table::hash(piece, length);
        if (length <= LONGEST && (memory.table.find(piece, length, hash) || seen.find(piece, length, hash)))
          return true;
        ids.clear();
        if (memory.rules && put_subwords(*memory.rules, piece, length, ids)) return true;
        if (length > LONGEST) return false;
        budget -= LOOK_UP + length;
        if ((more = budget < 0 || found == room)) return false;
        seen.add(piece, length, hash, nullptr, 0);
        starts[found] = piece - bytes;
        stops[found++] = piece - bytes + length;
        return true;
      });
    return more ? NEW_PIECES - found : found;
  } catch (const std::bad_alloc&) {
    return INT64_MIN;
  }
}

// Remember the ids of pieces: of piece i those from offsets[i] to offsets[i + 1]; where left[i], a text with it is the
// tokenizer's. A memory that was full begins anew, if `renew`.
EXPORT int64_t mlx_embed_pieces_learn(void* handle, const char* bytes, const int64_t* starts, const int64_t* stops,
                                      int64_t count, const int32_t* ids, const int64_t* offsets, const uint8_t* left,
                                      int renew) {
  try {
    Memory& memory = *static_cast<Memory*>(handle);
    std::unique_lock<std::shared_mutex> lock(memory.mutex);
    if (renew && memory.table.size() >= memory.capacity) memory.table = Table();
    for (int64_t i = 0; i < count; ++i) {
      const char* piece = bytes + starts[i];
      const int64_t size = stops[i] - starts[i], number = offsets[i + 1] - offsets[i];
      const bool leave = left[i] || number >= LEFT;
      memory.table.add(piece, size, Table::hash(piece, size), ids + offsets[i], leave ? LEFT : uint32_t(number));
    }
    return 0;
  } catch (const std::bad_alloc&) {
    return NO_MEMORY;
  }
}
