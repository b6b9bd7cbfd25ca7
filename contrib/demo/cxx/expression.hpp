// The value of an expression such as `2 * (3 + 4)`.
#pragma once

#include <string_view>

double evaluate(std::string_view expression);
