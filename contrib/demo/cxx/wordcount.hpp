// Facts about a text.
#pragma once

#include <cstdint>
#include <string>

std::size_t different_words(const std::string &text);
std::uint64_t collatz_steps(std::uint64_t from);
