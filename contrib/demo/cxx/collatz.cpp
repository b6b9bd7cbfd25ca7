#include "cache.hpp"
#include "wordcount.hpp"

std::uint64_t collatz_steps(std::uint64_t from)
{
    static Cache<std::uint64_t, std::uint64_t> known(1000);
    if (from <= 1)
        return 0;
    if (auto steps = known.find(from))
        return *steps;
    std::uint64_t steps = 1 + collatz_steps(from % 2 == 0 ? from / 2 : 3 * from + 1);
    known.add(from, steps);
    return steps;
}
