// The shortest way between two cities.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "graph.hpp"

struct Way {
    double length;
    std::vector<std::size_t> cities;
};

std::optional<Way> shortest_way(const Graph &graph, std::size_t from, std::size_t to);
