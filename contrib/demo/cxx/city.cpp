#include "city.hpp"

#include <sstream>
#include <stdexcept>

std::vector<City> read_cities(std::istream &in)
{
    std::vector<City> cities;
    for (std::string line; std::getline(in, line);) {
        if (line.empty() || line[0] == '#')
            continue;
        std::istringstream words(line);
        City city;
        if (!(words >> city.name >> city.place.x >> city.place.y))
            throw std::runtime_error("not a city: " + line);
        cities.push_back(std::move(city));
    }
    return cities;
}
