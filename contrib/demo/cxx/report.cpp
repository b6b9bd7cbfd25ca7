#include "report.hpp"

#include <iomanip>
#include <iterator>
#include <sstream>

#include "city.hpp"
#include "expression.hpp"
#include "graph.hpp"
#include "life.hpp"
#include "names.hpp"
#include "shortest.hpp"
#include "spanning.hpp"
#include "tour.hpp"
#include "wordcount.hpp"

namespace {

constexpr const char *map = R"(# name x y
Narvik 2 9
Oulu 9 8
Bergen 0 5
Oslo 2 4
Turku 8 4
Odense 2 1
Visby 6 2
Narva 10 4
)";

} // namespace

std::string report()
{
    std::istringstream in(map);
    const std::vector<City> cities = read_cities(in);
    const Graph graph(cities, 6.5);
    std::ostringstream out;
    out << std::fixed << std::setprecision(3);
    if (auto way = shortest_way(graph, 0, 7)) {
        out << "way " << way->length;
        for (std::size_t city : way->cities)
            out << ' ' << cities[city].name;
        out << '\n';
    }
    out << "net " << spanning_length(graph) << '\n';
    const std::vector<std::size_t> tour = short_tour(cities);
    std::vector<Point> corners;
    for (std::size_t city : tour)
        corners.push_back(cities[city].place);
    out << "tour " << tour_length(cities, tour) << " around "
        << area(corners.data(), static_cast<int>(corners.size())) << '\n';
    Names names;
    for (const City &city : cities)
        names.add(city.name);
    out << "O:";
    for (const std::string &name : names.beginning_with("O"))
        out << ' ' << name;
    out << "\nwords " << different_words(map) << " collatz " << collatz_steps(27);
    out << "\nvalue " << evaluate("2 * (3 + 4) - -1 / 8") << '\n';
    Cells cells{{0, 1}, {1, 2}, {2, 0}, {2, 1}, {2, 2}};
    for (int i = 0; i < 40; i++)
        cells = next_generation(cells);
    out << "glider " << cells.size() << " at " << cells.begin()->first << '\n';
    return out.str();
}
