// Conway's game of life on a plane without an edge.
#pragma once

#include <set>
#include <utility>

using Cells = std::set<std::pair<int, int>>;

Cells next_generation(const Cells &cells);
