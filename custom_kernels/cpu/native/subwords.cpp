// Words and their ids by a tokenizer's own rules: what cuts a text into words, and Unigram, BPE or WordPiece. Python
// tells what each simple character is, and what the normalizer makes of it, so that there is no table of Unicode here:
// a character is simple where the normalizer treats it alike whatever stands beside it. Pieces with any other are not
// for this file.
#include "subwords.h"
#include "trie.h"

#include <string.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <new>
#include <string>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// The numbers that subwords.py gives.
enum Cut : int32_t { AT_SPACES = 0, BEFORE_SPACES = 1, BERT = 2, GPT2 = 3, QWEN = 4 };
enum Model : int32_t { UNIGRAM = 0, BPE = 1, WORDPIECE = 2 };
enum Class : uint8_t { NOT_SIMPLE = 0, LETTER = 1, NUMBER = 2, OTHER = 3, ALONE = 4, SPACE = 5 };
constexpr uint8_t SUSPECT = 0x80;  // an added token may begin with this character
constexpr int64_t CHARACTERS = 1 << 16;

int64_t characters_bytes(unsigned char first) { return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4; }

// The ranks of pairs of tokens that are merged.
class Merges {
 public:
  void build(const int32_t* pairs, int64_t count) {
    size_t size = 1024;
    while (size < size_t(2 * count)) size *= 2;
    slots_.assign(size, Slot());
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t key = pair(pairs[2 * i], pairs[2 * i + 1]);
      size_t place = hash(key);
      while (slots_[place].rank >= 0 && slots_[place].key != key) place = (place + 1) & (size - 1);
      slots_[place] = {key, int32_t(i)};
    }
  }

  int32_t rank(int32_t left, int32_t right) const {
    const uint64_t key = pair(left, right);
    for (size_t place = hash(key);; place = (place + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[place];
      if (slot.rank < 0 || slot.key == key) return slot.rank;
    }
  }

 private:
  struct Slot {
    uint64_t key = 0;
    int32_t rank = -1;
  };

  static uint64_t pair(int32_t left, int32_t right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }
  size_t hash(uint64_t key) const {
    key *= 0x9e3779b97f4a7c15ull;
    return (key ^ (key >> 32)) & (slots_.size() - 1);
  }

  std::vector<Slot> slots_;
};

// What a thread works with.
struct Scratch {
  std::string text, word;       // a piece as the normalizer leaves it; a word with what is put before it
  std::vector<uint8_t> kinds;   // Class of each character of the text
  std::vector<int32_t> starts;  // where each begins, and the text's end
  struct Best {
    double score;
    int32_t start, token;
  };
  std::vector<Best> best;
  struct Symbol {
    int32_t token, before, after;
  };
  std::vector<Symbol> symbols;
  std::vector<uint64_t> queue;
};

}  // namespace

// As Python lays it out: `_Rules` in subwords.py, which says what is what.
struct Rules {
  int32_t cut, model, digits, prefixed, unknown, whole_words, longest;
  const uint8_t* kinds;
  const uint32_t* normal;
  const char* normal_bytes;
  int64_t normal_size;
  const char* tokens;
  const int64_t* token_ends;
  const int32_t* token_ids;
  const double* scores;
  int64_t count, vocabulary;
  const int32_t *merges, *merged, *of_bytes;
  int64_t merge_count;
  const char *prefix, *first_prefix, *inner;
  const char* added;
  const int64_t* added_ends;
  int64_t added_count;
};

struct Subwords {
  Rules rules;
  std::vector<uint8_t> kinds;
  std::vector<uint32_t>
      normal;  // where in normal_bytes what becomes of a character is, if not itself: size, then bytes
  std::string normal_bytes, prefix, first_prefix;
  std::vector<std::string> added;
  Trie trie;
  Merges merges;
  std::vector<int32_t> merged, of_bytes;
  std::vector<int32_t> byte_ranks;  // of pairs of bytes, the rank at which they are merged, or -1
  std::vector<double> scores;
  double unknown_score = 0;
  uint32_t inner = 0;  // the trie's node of what stands before a part within a word
  bool parts = true;   // whether any token begins with that

  explicit Subwords(const Rules& given)
      : rules(given),
        kinds(given.kinds, given.kinds + CHARACTERS),
        normal(given.normal, given.normal + CHARACTERS),
        normal_bytes(given.normal_bytes, given.normal_size),
        prefix(given.prefix),
        first_prefix(given.first_prefix),
        scores(given.scores, given.scores + given.vocabulary) {
    for (int64_t i = 0; i < given.added_count; ++i) {
      const int64_t begin = i ? given.added_ends[i - 1] : 0;
      added.emplace_back(given.added + begin, given.added_ends[i] - begin);
    }
    trie.build(given.tokens, given.token_ends, given.token_ids, given.count);
    for (const char* at = given.inner; *at && parts; ++at) parts = (inner = trie.child(inner, *at)) != 0;
    if (given.model == BPE) {
      merges.build(given.merges, given.merge_count);
      merged.assign(given.merged, given.merged + given.merge_count);
      of_bytes.assign(given.of_bytes, given.of_bytes + 256);
      for (int32_t left : of_bytes)
        for (int32_t right : of_bytes) byte_ranks.push_back(merges.rank(left, right));
    }
    if (given.model == UNIGRAM) unknown_score = *std::min_element(scores.begin(), scores.end()) - 10.0;
  }

  // What the normalizer leaves of a piece, into `work`; false where there is a character that is not simple.
  bool normalize(const char* piece, int64_t size, Scratch& work) const {
    bool suspect = false;
    for (int64_t i = 0; i < size;) {
      const unsigned char* at = reinterpret_cast<const unsigned char*>(piece + i);
      const int64_t length = characters_bytes(at[0]);
      const uint32_t code = length == 1   ? at[0]
                            : length == 2 ? (at[0] & 0x1fu) << 6 | (at[1] & 0x3f)
                            : length == 3 ? (at[0] & 0xfu) << 12 | (at[1] & 0x3fu) << 6 | (at[2] & 0x3f)
                                          : 0;
      const uint8_t kind = kinds[code];
      if (kind == NOT_SIMPLE) return false;
      suspect |= kind & SUSPECT;
      const char *bytes = piece + i, *end = bytes + length;
      if (normal[code]) {
        bytes = &normal_bytes[normal[code]];
        end = bytes + 1 + *bytes;
        ++bytes;
      }
      for (; bytes < end; bytes += characters_bytes(*bytes)) {
        work.kinds.push_back(kind & ~SUSPECT);
        work.starts.push_back(int32_t(work.text.size()));
        work.text.append(bytes, characters_bytes(*bytes));
      }
      i += length;
    }
    work.starts.push_back(int32_t(work.text.size()));
    if (!suspect) return true;
    const std::string raw(piece, size);
    return std::none_of(added.begin(), added.end(), [&](const std::string& token) {
      return raw.find(token) != std::string::npos || work.text.find(token) != std::string::npos;
    });
  }

  // The ids of a word, by the model.
  void put(const char* word, int64_t size, Scratch& work, std::vector<int32_t>& ids) const {
    if (rules.model == UNIGRAM) unigram(word, size, work, ids);
    else if (rules.model == BPE) byte_pairs(word, size, work, ids);
    else wordpiece(word, size, ids);
  }

  // The parts whose scores have the largest sum: the first of those that are found with it. What is in no part is
  // unknown, a character at a time; unknown parts that lie together are one.
  void unigram(const char* word, int64_t size, Scratch& work, std::vector<int32_t>& ids) const {
    work.best.assign(size + 1, {0.0, -1, 0});
    const auto offer = [&](int64_t end, double score, int64_t start, int32_t token) {
      Scratch::Best& best = work.best[end];
      if (best.start < 0 || score > best.score) best = {score, int32_t(start), token};
    };
    for (int64_t start = 0; start < size;) {
      const int64_t length = characters_bytes(word[start]);
      const double score = work.best[start].score;
      bool known = false;
      uint32_t node = 0;
      for (int64_t end = start; end < size && (node = trie.child(node, word[end]));) {
        const int32_t token = trie.token(node);
        ++end;
        if (token < 0) continue;
        offer(end, score + scores[token], start, token);
        known |= end - start == length;
      }
      if (!known) offer(start + length, score + unknown_score, start, rules.unknown);
      start += length;
    }
    const size_t first = ids.size();
    for (int64_t end = size; end > 0;) {
      int64_t start = work.best[end].start;
      int32_t token = work.best[end].token;
      if (token == rules.unknown) {
        while (start > 0 && work.best[start].token == rules.unknown) start = work.best[start].start;
        const int32_t found = trie.find(word + start, end - start);
        if (found >= 0) token = found;
      }
      ids.push_back(token);
      end = start;
    }
    std::reverse(ids.begin() + first, ids.end());
  }

  // Merges the pair of the lowest rank, the first of those, until there is none.
  void byte_pairs(const char* word, int64_t size, Scratch& work, std::vector<int32_t>& ids) const {
    if (rules.whole_words) {
      const int32_t token = trie.find(word, size);
      if (token >= 0) return ids.push_back(token);
    }
    auto& symbols = work.symbols;
    auto& queue = work.queue;
    symbols.clear();
    queue.clear();
    const auto offer = [&](int32_t left, int32_t right) {
      const int32_t rank = merges.rank(symbols[left].token, symbols[right].token);
      if (rank >= 0) queue.push_back(uint64_t(rank) << 32 | uint32_t(left));
      return rank >= 0;
    };
    for (int64_t i = 0; i < size; ++i)
      symbols.push_back(
          {of_bytes[static_cast<unsigned char>(word[i])], int32_t(i) - 1, i + 1 < size ? int32_t(i) + 1 : -1});
    const auto byte = [&](int64_t i) { return static_cast<unsigned char>(word[i]); };
    for (int64_t i = 0; i + 1 < size; ++i) {
      const int32_t rank = byte_ranks[byte(i) << 8 | byte(i + 1)];
      if (rank >= 0) queue.push_back(uint64_t(rank) << 32 | uint32_t(i));
    }
    std::make_heap(queue.begin(), queue.end(), std::greater<>());
    while (!queue.empty()) {
      std::pop_heap(queue.begin(), queue.end(), std::greater<>());
      const int32_t rank = int32_t(queue.back() >> 32), place = int32_t(queue.back());
      queue.pop_back();
      Scratch::Symbol& symbol = symbols[place];
      if (symbol.token < 0 || symbol.after < 0) continue;
      Scratch::Symbol& right = symbols[symbol.after];
      // Another pair may stand here by now. It is merged all the same if it becomes the same token, as by the library.
      const int32_t now = merges.rank(symbol.token, right.token);
      if (now < 0 || merged[now] != merged[rank]) continue;
      symbol.token = merged[rank];
      right.token = -1;
      symbol.after = right.after;
      if (symbol.after >= 0) symbols[symbol.after].before = place;
      if (symbol.before >= 0 && offer(symbol.before, place))
        std::push_heap(queue.begin(), queue.end(), std::greater<>());
      if (symbol.after >= 0 && offer(place, symbol.after)) std::push_heap(queue.begin(), queue.end(), std::greater<>());
    }
    for (const Scratch::Symbol& symbol : symbols)
      if (symbol.token >= 0) ids.push_back(symbol.token);
  }

  // The longest token that a word begins with, then the longest within it, and so on; unknown where there is none.
  void wordpiece(const char* word, int64_t size, std::vector<int32_t>& ids) const {
    const size_t first = ids.size();
    int64_t length = 0;
    for (int64_t i = 0; i < size; i += characters_bytes(word[i])) ++length;
    int64_t start = length > rules.longest ? -1 : 0;
    while (start >= 0 && start < size) {
      int64_t stop = -1;
      int32_t found = -1;
      if (start && !parts) break;
      uint32_t node = start ? inner : 0;
      for (int64_t end = start; end < size && (node = trie.child(node, word[end]));)
        if (const int32_t token = trie.token(node); ++end, token >= 0) found = token, stop = end;
      if (found >= 0) ids.push_back(found);
      start = stop;
    }
    if (start == size) return;
    ids.resize(first);
    ids.push_back(rules.unknown);
  }

  // Calls word(first, last) for each word of a text, in characters; false where it has what is not for this file.
  template <class Word> bool words(const Scratch& work, const Word& word) const {
    const uint8_t* kinds = work.kinds.data();
    const int64_t size = int64_t(work.kinds.size());
    const auto run = [&](int64_t i, int kind) {
      while (i < size && kinds[i] == kind) ++i;
      return i;
    };
    if (rules.cut == BEFORE_SPACES)
      for (int64_t i = 0; i < size; ++i)
        if (kinds[i] == SPACE && (i + 1 == size || kinds[i + 1] == SPACE)) return false;  // several may become one
    for (int64_t i = 0, end; i < size; i = end) {
      if (rules.cut == GPT2 || rules.cut == QWEN) {
        end = rules.cut == GPT2 ? gpt2(work, i, run) : qwen(work, i, run);
        word(i, end);
        continue;
      }
      end = i + 1;
      if (kinds[i] == SPACE) continue;  // a space that belongs to the word behind it stands in that one's prefix
      while (kinds[i] != ALONE && end < size && kinds[end] != SPACE && kinds[end] != ALONE) ++end;
      word(i, end);
    }
    return true;
  }

  // 's, 't, 're, 've, 'm, 'll or 'd at a place: their characters, or 0; `fold` where capitals are as good.
  static int64_t contraction(const Scratch& work, int64_t i, bool fold) {
    const char* at = &work.text[work.starts[i]];
    if (*at != '\'') return 0;
    const auto letter = [&](int64_t place) {
      if (i + place >= int64_t(work.kinds.size())) return '\0';
      const char found = work.text[work.starts[i + place]];
      return fold && found >= 'A' && found <= 'Z' ? char(found + 32) : found;
    };
    const char first = letter(1), second = first ? letter(2) : '\0';
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
    const bool two =
        (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
    return two ? 3 : 0;
  }

  // Where white space that begins here is cut: before its last character, if there is a word behind it.
  template <class Run> static int64_t space(const Scratch& work, int64_t i, const Run& run) {
    const int64_t end = run(i, SPACE);
    return end == int64_t(work.kinds.size()) || end == i + 1 ? end : end - 1;
  }

  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  template <class Run> static int64_t gpt2(const Scratch& work, int64_t i, const Run& run) {
    if (const int64_t length = contraction(work, i, false)) return i + length;
    const int64_t size = int64_t(work.kinds.size());
    const int64_t next = work.text[work.starts[i]] == ' ' && i + 1 < size ? i + 1 : i;
    return work.kinds[next] == SPACE ? space(work, i, run) : run(next, work.kinds[next]);
  }

  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
  // \s+(?!\S)|\s+
  template <class Run> int64_t qwen(const Scratch& work, int64_t i, const Run& run) const {
    if (const int64_t length = contraction(work, i, true)) return i + length;
    const int64_t size = int64_t(work.kinds.size());
    const auto kind = [&](int64_t place) { return place < size ? work.kinds[place] : uint8_t(NOT_SIMPLE); };
    const auto line = [&](int64_t place) {
      const char found = work.text[work.starts[place]];
      return place < size && (found == '\n' || found == '\r');
    };
    if (kind(i) == LETTER) return run(i, LETTER);
    if (kind(i) != NUMBER && !line(i) && kind(i + 1) == LETTER) return run(i + 1, LETTER);
    if (kind(i) == NUMBER) return std::min(run(i, NUMBER), i + rules.digits);
    const int64_t other = work.text[work.starts[i]] == ' ' ? i + 1 : i;
    if (kind(other) == OTHER) {
      int64_t end = run(other, OTHER);
      while (line(end)) ++end;
      return end;
    }
    for (int64_t end = run(i, SPACE); end > i; --end)
      if (line(end - 1)) return end;
    return space(work, i, run);
  }
};

bool put_subwords(const Subwords& rules, const char* piece, int64_t size, std::vector<int32_t>& ids) {
  thread_local Scratch own;
  Scratch& work = own;  // a reference, since each use of a thread's own variable is looked up
  work.text.clear();
  work.kinds.clear();
  work.starts.clear();
  if (rules.rules.prefixed && *piece != ' ') {
    work.text = " ";
    work.kinds.push_back(SPACE);
    work.starts.push_back(0);
  }
  if (size == 0 || !rules.normalize(piece, size, work)) return false;
  const bool bare = rules.rules.cut == BEFORE_SPACES && work.kinds[0] != SPACE;
  return rules.words(work, [&](int64_t first, int64_t last) {
    const char* word = &work.text[work.starts[first]];
    const int64_t length = work.starts[last] - work.starts[first];
    const std::string& prefix = bare && first == 0 ? rules.first_prefix : rules.prefix;
    if (prefix.empty()) return rules.put(word, length, work, ids);
    work.word = prefix;
    work.word.append(word, length);
    rules.put(work.word.data(), int64_t(work.word.size()), work, ids);
  });
}

// Null where there is no memory.
EXPORT void* mlx_embed_subwords_new(const Rules* rules) {
  try {
    return new Subwords(*rules);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

EXPORT void mlx_embed_subwords_delete(void* rules) { delete static_cast<Subwords*>(rules); }
