/* Multiplies two made-up matrices and prints a digest of the product. */
#include "matkit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 400, INNER = 420, COLUMNS = 410 };

static uint64_t state;

static uint64_t next(void) /* splitmix64 */
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static matrix *random_matrix(size_t rows, size_t columns)
{
    matrix *m = matkit_new(rows, columns);
    for (size_t i = 0; i < rows * columns; i++)
        m->values[i] = (double)(next() >> 11) / 9007199254740992.0 - 0.5;
    return m;
}

int main(void)
{
    const char *seed = getenv("BENCH_SEED");
    for (const char *c = seed ? seed : "0"; *c; c++)
        state = state * 1000003u + (unsigned char)*c;
    matrix *left = random_matrix(ROWS, INNER), *right = random_matrix(INNER, COLUMNS);
    matrix *product = matkit_multiply(left, right);
    uint64_t digest = 14695981039346656037u; /* FNV-1a over the bits */
    for (size_t i = 0; i < product->rows * product->columns; i++) {
        uint64_t bits;
        memcpy(&bits, &product->values[i], sizeof bits);
        digest = (digest ^ bits) * 1099511628211u;
        digest ^= digest >> 29;
    }
    printf("product %zu x %zu %016" PRIx64 "\n", product->rows, product->columns, digest);
    matkit_free(left), matkit_free(right), matkit_free(product);
    return 0;
}
