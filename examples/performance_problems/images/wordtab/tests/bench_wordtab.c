/* Counts the words of a made-up book, some more frequent than others; prints the first rows and a digest of all. */
#include "words.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORDS = 42000, DIFFERENT = 9000 };

static uint64_t state;

static unsigned below(unsigned limit) /* PCG's multiplier, upper half */
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((state >> 33) % limit);
}

static size_t write_word(char *place, unsigned index, uint64_t book)
{
    size_t size = 0;
    uint64_t letters = (index + 1) * 0x9e3779b97f4a7c15u ^ book;
    for (letters = (letters ^ letters >> 31) * 0xbf58476d1ce4e5b9u >> 24; letters > 99; letters /= 26, size++)
        place[size] = (char)((size ? 'a' : 'A') + letters % 26);
    place[size++] = index % 7 ? ' ' : '\n';
    return size;
}

int main(void)
{
    const char *seed = getenv("BENCH_SEED");
    for (seed = seed ? seed : "0"; *seed; seed++)
        state = (state + (unsigned char)*seed) * 1099511628211u;
    char *text = malloc(WORDS * 16);
    size_t length = 0;
    uint64_t book = state, digest = 0;
    for (int i = 0; i < WORDS; i++) {
        unsigned one = below(DIFFERENT), other = below(DIFFERENT);
        length += write_word(text + length, one < other ? one : other, book);
    }
    table *t = table_new();
    printf("words %zu\n", words_count(t, text, length));
    table_row *rows = table_sorted(t);
    for (size_t i = 0; i < table_size(t); i++) {
        digest = (digest ^ (uint64_t)rows[i].count) * 0x100000001b3u;
        for (const char *c = rows[i].key; *c; c++)
            digest = (digest ^ (unsigned char)*c) * 0x100000001b3u;
        if (i < 3)
            printf("%s %ld\n", rows[i].key, rows[i].count);
    }
    printf("rows %zu %016llx\n", table_size(t), (unsigned long long)digest);
    free(rows);
    free(text);
    table_free(t);
    return 0;
}
