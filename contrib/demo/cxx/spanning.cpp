#include "spanning.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace {

class Groups {
public:
    explicit Groups(std::size_t count) : parent_(count)
    {
        std::iota(parent_.begin(), parent_.end(), std::size_t{0});
    }

    std::size_t find(std::size_t item)
    {
        while (parent_[item] != item)
            item = parent_[item] = parent_[parent_[item]];
        return item;
    }

    bool join(std::size_t a, std::size_t b)
    {
        a = find(a);
        b = find(b);
        parent_[a] = b;
        return a != b;
    }

private:
    std::vector<std::size_t> parent_;
};

} // namespace

double spanning_length(const Graph &graph)
{
    std::vector<std::tuple<double, std::size_t, std::size_t>> roads;
    for (std::size_t city = 0; city < graph.size(); city++)
        for (const Road &road : graph.from(city))
            if (city < road.to)
                roads.emplace_back(road.length, city, road.to);
    std::sort(roads.begin(), roads.end());
    Groups groups(graph.size());
    double sum = 0;
    for (auto [length, a, b] : roads)
        if (groups.join(a, b))
            sum += length;
    return sum;
}
