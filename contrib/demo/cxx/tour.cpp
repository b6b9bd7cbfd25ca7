#include "tour.hpp"

#include <algorithm>
#include <numeric>

double tour_length(const std::vector<City> &cities, const std::vector<std::size_t> &tour)
{
    double length = 0;
    for (std::size_t i = 0; i < tour.size(); i++)
        length += distance(cities[tour[i]].place, cities[tour[(i + 1) % tour.size()]].place);
    return length;
}

std::vector<std::size_t> short_tour(const std::vector<City> &cities)
{
    std::vector<std::size_t> tour(cities.size());
    std::iota(tour.begin(), tour.end(), std::size_t{0});
    for (bool is_better = true; is_better;) {
        is_better = false;
        for (std::size_t i = 1; i < tour.size(); i++)
            for (std::size_t j = i + 1; j < tour.size(); j++) {
                std::vector<std::size_t> turned = tour;
                std::reverse(turned.begin() + static_cast<std::ptrdiff_t>(i),
                             turned.begin() + static_cast<std::ptrdiff_t>(j) + 1);
                if (tour_length(cities, turned) + 1e-9 < tour_length(cities, tour)) {
                    tour = std::move(turned);
                    is_better = true;
                }
            }
    }
    return tour;
}
