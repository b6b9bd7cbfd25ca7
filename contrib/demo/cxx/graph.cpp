#include "graph.hpp"

Graph::Graph(const std::vector<City> &cities, double longest_road) : roads_(cities.size())
{
    for (std::size_t i = 0; i < cities.size(); i++)
        for (std::size_t j = 0; j < cities.size(); j++) {
            double length = distance(cities[i].place, cities[j].place);
            if (i != j && length <= longest_road)
                roads_[i].push_back({j, length});
        }
}
