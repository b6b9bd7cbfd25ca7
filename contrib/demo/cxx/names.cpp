#include "names.hpp"

void Names::add(std::string_view name)
{
    Names *at = this;
    for (char letter : name) {
        std::unique_ptr<Names> &next = at->next_[letter];
        if (!next)
            next = std::make_unique<Names>();
        at = next.get();
    }
    at->is_end_ = true;
}

std::vector<std::string> Names::beginning_with(std::string_view prefix) const
{
    std::vector<std::string> found;
    if (prefix.empty()) {
        if (is_end_)
            found.emplace_back();
        for (const auto &[letter, next] : next_)
            for (const std::string &rest : next->beginning_with(""))
                found.push_back(letter + rest);
        return found;
    }
    auto next = next_.find(prefix.front());
    if (next != next_.end())
        for (const std::string &rest : next->second->beginning_with(prefix.substr(1)))
            found.push_back(prefix.front() + rest);
    return found;
}
