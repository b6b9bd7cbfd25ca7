// The shortest net of roads that joins all cities.
#pragma once

#include "graph.hpp"

double spanning_length(const Graph &graph);
