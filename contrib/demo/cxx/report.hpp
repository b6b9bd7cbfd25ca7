// What the program finds out, as text.
#pragma once

#include <string>

std::string report();
