/* Dense matrices of doubles. */
#ifndef MATKIT_H
#define MATKIT_H

#include <stddef.h>

typedef struct {
    size_t rows, columns;
    double *values; /* row by row */
} matrix;

/* A matrix of zeros; NULL without memory. */
matrix *matkit_new(size_t rows, size_t columns);
matrix *matkit_identity(size_t size);
void matkit_free(matrix *m);

double matkit_get(const matrix *m, size_t row, size_t column);
void matkit_set(matrix *m, size_t row, size_t column, double value);

/* New matrices; NULL where the shapes do not fit, or without memory. */
matrix *matkit_transpose(const matrix *m);
matrix *matkit_multiply(const matrix *left, const matrix *right);
matrix *matkit_power(const matrix *m, unsigned exponent);

#endif
