#include "shortest.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

std::optional<Way> shortest_way(const Graph &graph, std::size_t from, std::size_t to)
{
    constexpr double infinity = std::numeric_limits<double>::infinity();
    std::vector<double> best(graph.size(), infinity);
    std::vector<std::size_t> before(graph.size(), from);
    using Entry = std::pair<double, std::size_t>;
    std::priority_queue<Entry, std::vector<Entry>, std::greater<>> open;
    best[from] = 0;
    open.push({0, from});
    while (!open.empty()) {
        auto [length, city] = open.top();
        open.pop();
        if (length > best[city])
            continue;
        for (const Road &road : graph.from(city))
            if (length + road.length < best[road.to]) {
                best[road.to] = length + road.length;
                before[road.to] = city;
                open.push({best[road.to], road.to});
            }
    }
    if (best[to] == infinity)
        return std::nullopt;
    Way way{best[to], {to}};
    while (way.cities.back() != from)
        way.cities.push_back(before[way.cities.back()]);
    std::reverse(way.cities.begin(), way.cities.end());
    return way;
}
