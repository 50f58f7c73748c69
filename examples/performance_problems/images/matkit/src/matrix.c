#include "matkit.h"

#include <stdlib.h>

matrix *matkit_new(size_t rows, size_t columns)
{
    matrix *m = malloc(sizeof *m);
    if (m == NULL)
        return NULL;
    m->rows = rows;
    m->columns = columns;
    m->values = calloc(rows * columns + 1, sizeof *m->values);
    if (m->values == NULL) {
        free(m);
        return NULL;
    }
    return m;
}

matrix *matkit_identity(size_t size)
{
    matrix *m = matkit_new(size, size);
    for (size_t i = 0; m != NULL && i < size; i++)
        matkit_set(m, i, i, 1.0);
    return m;
}

void matkit_free(matrix *m)
{
    if (m != NULL) {
        free(m->values);
        free(m);
    }
}

double matkit_get(const matrix *m, size_t row, size_t column)
{
    return m->values[row * m->columns + column];
}

void matkit_set(matrix *m, size_t row, size_t column, double value)
{
    m->values[row * m->columns + column] = value;
}
