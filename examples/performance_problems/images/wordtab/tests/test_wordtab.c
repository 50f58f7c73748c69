#include "words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number, bad;

static void check(int good, const char *what, long detail)
{
    number++;
    bad += !good;
    if (!good)
        printf("%d: %s (%ld)\n", number, what, detail);
}

static void test_counting(void)
{
    table *t = table_new();
    check(table_size(t) == 0 && table_get(t, "a", 1) == 0, "a new table is empty", 0);
    check(table_count(t, "abc", 3, 1) == 1, "begins at 0", 0);
    check(table_count(t, "abcd", 3, 4) == 5, "only so many bytes are the key", 0);
    check(table_count(t, "cba", 3, 2) == 2, "another order is another key", 0);
    check(table_count(t, "ab", 2, 7) == 7, "a beginning is another key", 0);
    check(table_count(t, "", 0, 3) == 3, "no bytes are a key", 0);
    check(table_count(t, "\377\200", 2, -3) == -3, "any bytes", 0);
    check(table_count(t, "zero", 4, 0) == 0, "a count of 0 is one", 0);
    check(table_size(t) == 6, "size", (long)table_size(t));
    check(table_get(t, "abc", 3) == 5 && table_get(t, "abc", 2) == 7 && table_get(t, "b", 1) == 0, "get", 0);
    table_free(t);
    table_free(NULL);
}

static void test_removing(void)
{
    table *t = table_new();
    table_count(t, "ad", 2, 1), table_count(t, "bc", 2, 2), table_count(t, "cb", 2, 3), table_count(t, "da", 2, 4);
    check(table_remove(t, "bc", 2), "was there", 0);
    check(!table_remove(t, "bc", 2), "is gone", 0);
    check(table_get(t, "cb", 2) == 3 && table_get(t, "da", 2) == 4 && table_get(t, "ad", 2) == 1, "others stay", 0);
    check(table_count(t, "bc", 2, 9) == 9, "begins anew", table_get(t, "bc", 2));
    check(table_size(t) == 4, "size", (long)table_size(t));
    table_free(t);
}

static void test_order(void)
{
    table *t = table_new();
    const char *expected[] = {"most", "a", "aa", "b", "\303\244", "least"};
    table_count(t, "\303\244", 2, 2), table_count(t, "aa", 2, 2), table_count(t, "least", 5, -1);
    table_count(t, "b", 1, 2), table_count(t, "a", 1, 2), table_count(t, "most", 4, 3);
    table_row *rows = table_sorted(t);
    for (int i = 0; i < 6; i++)
        check(strcmp(rows[i].key, expected[i]) == 0, rows[i].key, i);
    check(rows[0].count == 3 && rows[5].count == -1, "counts", rows[0].count);
    free(rows);
    table_free(t);
}

static void test_many(void)
{
    enum { KEYS = 3000 };
    table *t = table_new();
    char key[16];
    long wrong = 0;
    for (int round = 1; round <= 3; round++)
        for (int i = 0; i < KEYS; i++)
            table_count(t, key, (size_t)sprintf(key, "k%d", i * 37), i % 10 + round);
    for (int i = 0; i < KEYS; i += 2)
        wrong += !table_remove(t, key, (size_t)sprintf(key, "k%d", i * 37));
    for (int i = 0; i < KEYS; i++)
        wrong += table_get(t, key, (size_t)sprintf(key, "k%d", i * 37)) != (i % 2 ? i % 10 * 3 + 6 : 0);
    check(wrong == 0, "many keys", wrong);
    check(table_size(t) == KEYS / 2, "half are left", (long)table_size(t));
    table_free(t);
}

static void test_words(void)
{
    const char *text = "The cat, the CAT & the 2nd cat's hat.\nThe end";
    char longest[101];
    table *t = table_new();
    check(words_count(t, text, strlen(text)) == 11, "words", 0);
    check(table_get(t, "the", 3) == 4 && table_get(t, "cat", 3) == 3 && table_get(t, "2nd", 3) == 1, "counts", 0);
    check(words_count(t, text, 5) == 2 && table_get(t, "c", 1) == 1, "only so much of the text", 0);
    check(words_count(t, " .. ", 4) == 0 && words_count(t, "", 0) == 0, "no words", 0);
    memset(longest, 'x', sizeof longest);
    check(words_count(t, longest, 100) == 1 && table_get(t, longest, 63) == 1, "a long word is cut", 0);
    table_free(t);
}

int main(void)
{
    test_counting();
    test_removing();
    test_order();
    test_many();
    test_words();
    printf("%d checks, %d bad\n", number, bad);
    return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
