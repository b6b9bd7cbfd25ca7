// Roads between cities.
#pragma once

#include <cstddef>
#include <vector>

#include "city.hpp"

struct Road {
    std::size_t to;
    double length;
};

class Graph {
public:
    explicit Graph(const std::vector<City> &cities, double longest_road);
    std::size_t size() const { return roads_.size(); }
    const std::vector<Road> &from(std::size_t city) const { return roads_.at(city); }

private:
    std::vector<std::vector<Road>> roads_;
};
