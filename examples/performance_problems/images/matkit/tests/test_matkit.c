#include "matkit.h"

#include <stdio.h>
#include <stdlib.h>

static int checks, failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        checks++;                                                                                                      \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                     \
        }                                                                                                              \
    } while (0)

static matrix *filled(size_t rows, size_t columns, const double *values)
{
    matrix *m = matkit_new(rows, columns);
    for (size_t i = 0; i < rows * columns; i++)
        m->values[i] = values[i];
    return m;
}

static int same(const matrix *m, size_t rows, size_t columns, const double *values)
{
    if (m == NULL || m->rows != rows || m->columns != columns)
        return 0;
    for (size_t i = 0; i < rows * columns; i++)
        if (m->values[i] != values[i])
            return 0;
    return 1;
}

static void test_multiply(void)
{
    const double a[] = {1, 2, 3, 4, 5, 6}, b[] = {7, 8, 9, 10, 11, 12};
    matrix *left = filled(2, 3, a), *right = filled(3, 2, b);
    matrix *product = matkit_multiply(left, right), *other = matkit_multiply(right, left);
    CHECK(same(product, 2, 2, (const double[]){58, 64, 139, 154}));
    CHECK(same(other, 3, 3, (const double[]){39, 54, 69, 49, 68, 87, 59, 82, 105}));
    CHECK(same(left, 2, 3, a));
    CHECK(same(right, 3, 2, b));
    CHECK(matkit_multiply(left, left) == NULL);
    matkit_free(left), matkit_free(right), matkit_free(product), matkit_free(other);
}

static void test_order_of_additions(void)
{
    /* 1e16 + 1 is 1e16 again: another order gives another sum. */
    matrix *left = filled(1, 4, (const double[]){1e16, 1, 1, -1e16});
    matrix *right = filled(4, 1, (const double[]){1, 1, 1, 1});
    matrix *product = matkit_multiply(left, right);
    CHECK(same(product, 1, 1, (const double[]){0}));
    matkit_free(left), matkit_free(right), matkit_free(product);
}

static void test_against_definition(void)
{
    enum { ROWS = 37, INNER = 70, COLUMNS = 53 };
    matrix *left = matkit_new(ROWS, INNER), *right = matkit_new(INNER, COLUMNS);
    for (size_t i = 0; i < ROWS * INNER; i++)
        left->values[i] = (double)(i * 7919 % 101) / 8 - 5;
    for (size_t i = 0; i < INNER * COLUMNS; i++)
        right->values[i] = (double)(i * 6271 % 97) / 3 - 14;
    matrix *product = matkit_multiply(left, right);
    int equal = 1;
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t column = 0; column < COLUMNS; column++) {
            double sum = 0;
            for (size_t inner = 0; inner < INNER; inner++)
                sum += matkit_get(left, row, inner) * matkit_get(right, inner, column);
            equal &= matkit_get(product, row, column) == sum;
        }
    }
    CHECK(equal);
    matkit_free(left), matkit_free(right), matkit_free(product);
}

static void test_nothing(void)
{
    matrix *left = matkit_new(2, 0), *right = matkit_new(0, 3), *product = matkit_multiply(left, right);
    CHECK(same(product, 2, 3, (const double[]){0, 0, 0, 0, 0, 0}));
    matkit_free(left), matkit_free(right), matkit_free(product);
}

static void test_transpose(void)
{
    matrix *m = filled(2, 3, (const double[]){1, 2, 3, 4, 5, 6}), *t = matkit_transpose(m);
    CHECK(same(t, 3, 2, (const double[]){1, 4, 2, 5, 3, 6}));
    matkit_free(m), matkit_free(t);
}

static void test_power(void)
{
    matrix *m = filled(2, 2, (const double[]){1, 1, 1, 0}), *wide = matkit_new(1, 2);
    matrix *zeroth = matkit_power(m, 0), *tenth = matkit_power(m, 10);
    CHECK(same(zeroth, 2, 2, (const double[]){1, 0, 0, 1}));
    CHECK(same(tenth, 2, 2, (const double[]){89, 55, 55, 34}));
    CHECK(matkit_power(wide, 2) == NULL);
    matkit_free(m), matkit_free(wide), matkit_free(zeroth), matkit_free(tenth);
}

int main(void)
{
    test_multiply();
    test_order_of_additions();
    test_against_definition();
    test_nothing();
    test_transpose();
    test_power();
    printf("%d checks, %d failures\n", checks, failures);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
