#include "geometry.hpp"

double area(const Point *corners, int count)
{
    double twice = 0;
    for (int i = 0; i < count; i++) {
        const Point &a = corners[i];
        const Point &b = corners[(i + 1) % count];
        twice += a.x * b.y - b.x * a.y;
    }
    return std::abs(twice) / 2;
}
