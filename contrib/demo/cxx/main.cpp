// Prints the report; with a file, compares it with its content.
#include <fstream>
#include <iostream>
#include <iterator>

#include "report.hpp"

int main(int argc, char **argv)
{
    const std::string text = report();
    if (argc < 2) {
        std::cout << text;
        return 0;
    }
    std::ifstream file(argv[1]);
    const std::string expected(std::istreambuf_iterator<char>(file), {});
    const bool is_right = text == expected;
    std::cout << "route: " << (is_right ? "as expected" : "WRONG") << '\n';
    return is_right ? 0 : 1;
}
