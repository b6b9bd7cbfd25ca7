// Cities, read from text.
#pragma once

#include <istream>
#include <string>
#include <vector>

#include "geometry.hpp"

struct City {
    std::string name;
    Point place;
};

std::vector<City> read_cities(std::istream &in);
