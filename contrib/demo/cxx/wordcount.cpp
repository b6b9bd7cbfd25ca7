#include "wordcount.hpp"

#include <regex>
#include <set>

std::size_t different_words(const std::string &text)
{
    static const std::regex word("[A-Za-z]+");
    return std::set<std::string>(std::sregex_token_iterator(text.begin(), text.end(), word), {})
        .size();
}
