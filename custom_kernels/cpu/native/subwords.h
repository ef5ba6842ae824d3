// A tokenizer's own rules, for pieces of texts of which all characters are simple: see subwords.cpp.
#pragma once
#include <stdint.h>

#include <vector>

struct Subwords;

// Appends the ids of a piece, without special tokens; false, and none, where the rules here do not say what they are.
bool put_subwords(const Subwords& rules, const char* piece, int64_t size, std::vector<int32_t>& ids);
