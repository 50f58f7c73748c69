#include "matkit.h"

matrix *matkit_transpose(const matrix *m)
{
    matrix *t = matkit_new(m->columns, m->rows);
    if (t == NULL)
        return NULL;
    for (size_t row = 0; row < m->rows; row++)
        for (size_t column = 0; column < m->columns; column++)
            matkit_set(t, column, row, matkit_get(m, row, column));
    return t;
}

matrix *matkit_multiply(const matrix *left, const matrix *right)
{
    if (left->columns != right->rows)
        return NULL;
    matrix *product = matkit_new(left->rows, right->columns);
    if (product == NULL)
        return NULL;
    for (size_t column = 0; column < right->columns; column++) {
        for (size_t row = 0; row < left->rows; row++) {
            for (size_t inner = 0; inner < left->columns; inner++) {
                double term = matkit_get(left, row, inner) * matkit_get(right, inner, column);
                matkit_set(product, row, column, matkit_get(product, row, column) + term);
            }
        }
    }
    return product;
}

matrix *matkit_power(const matrix *m, unsigned exponent)
{
    if (m->rows != m->columns)
        return NULL;
    matrix *power = matkit_identity(m->rows);
    while (power != NULL && exponent-- > 0) {
        matrix *next = matkit_multiply(power, m);
        matkit_free(power);
        power = next;
    }
    return power;
}
