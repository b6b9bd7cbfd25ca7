// Cities by the beginning of their names.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

class Names {
public:
    void add(std::string_view name);
    std::vector<std::string> beginning_with(std::string_view prefix) const;

private:
    std::map<char, std::unique_ptr<Names>> next_;
    bool is_end_ = false;
};
