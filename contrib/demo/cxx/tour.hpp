// A round trip through all cities, made shorter by turning parts of it round.
#pragma once

#include <cstddef>
#include <vector>

#include "city.hpp"

std::vector<std::size_t> short_tour(const std::vector<City> &cities);
double tour_length(const std::vector<City> &cities, const std::vector<std::size_t> &tour);
