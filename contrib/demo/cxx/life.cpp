#include "life.hpp"

#include <map>

Cells next_generation(const Cells &cells)
{
    std::map<std::pair<int, int>, int> neighbours;
    for (const auto &[x, y] : cells)
        for (int dx = -1; dx <= 1; dx++)
            for (int dy = -1; dy <= 1; dy++)
                if (dx != 0 || dy != 0)
                    neighbours[{x + dx, y + dy}]++;
    Cells next;
    for (const auto &[cell, count] : neighbours)
        if (count == 3 || (count == 2 && cells.count(cell) > 0))
            next.insert(cell);
    return next;
}
