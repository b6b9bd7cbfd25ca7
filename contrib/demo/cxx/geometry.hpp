// Points and distances.
#pragma once

#include <cmath>

struct Point {
    double x = 0;
    double y = 0;
};

inline double distance(Point a, Point b)
{
    return std::hypot(a.x - b.x, a.y - b.y);
}

double area(const Point *corners, int count);
