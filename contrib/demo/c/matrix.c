#include "demo.h"

#include <string.h>

enum { SIZE = 8 };

static void multiply(double left[SIZE][SIZE], double right[SIZE][SIZE])
{
    double product[SIZE][SIZE] = {{0}};
    for (int i = 0; i < SIZE; i++)
        for (int k = 0; k < SIZE; k++)
            for (int j = 0; j < SIZE; j++)
                product[i][j] += left[i][k] * right[k][j];
    memcpy(left, product, sizeof product);
}

/* A ring of eight rooms: how many walks of `power` steps end where they began. */
double matrix_trace_of_power(unsigned power)
{
    double ring[SIZE][SIZE] = {{0}}, result[SIZE][SIZE] = {{0}}, trace = 0;
    for (int i = 0; i < SIZE; i++) {
        ring[i][(i + 1) % SIZE] = ring[i][(i + SIZE - 1) % SIZE] = 1;
        result[i][i] = 1;
    }
    while (power-- > 0)
        multiply(result, ring);
    for (int i = 0; i < SIZE; i++)
        trace += result[i][i];
    return trace;
}
