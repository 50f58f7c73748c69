/* Letters of made-up text, through all functions. Prints a digest of what comes out. */
#include "textnorm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH 100000

static unsigned long state = 1;

static unsigned long below(unsigned long limit) /* Numerical Recipes' ranqd1, upper bits */
{
    state = (state * 1664525UL + 1013904223UL) & 0xffffffffUL;
    return (state >> 8) % limit;
}

static unsigned long digest(const char *text, unsigned long sum)
{
    for (; *text; text++)
        sum = ((sum ^ (unsigned char)*text) * 16777619UL) & 0xffffffffUL;
    return (sum * 31 + 7) & 0xffffffffUL;
}

static void write_letter(char *text)
{
    static const char *const pieces[] = {"  ", " ", "\t", "\n", "Dear ", "ABC", "x7", ", ", "\303\274", "--", "Q", "end. "};
    char *end = text + LENGTH;
    while (text < end) {
        const char *piece = pieces[below(12)];
        size_t size = strlen(piece);
        memcpy(text, piece, size);
        text += size;
    }
    *text = '\0';
}

int main(void)
{
    static char letter[LENGTH + 16], copy[LENGTH + 16];
    const char *seed = getenv("BENCH_SEED");
    unsigned long sum = 2166136261UL;
    for (seed = seed ? seed : "0"; *seed; seed++)
        state = (state * 131 + (unsigned char)*seed) & 0xffffffffUL;
    write_letter(letter);
    sum = digest(tn_squeeze(strcpy(copy, letter)), sum);
    sum = digest(tn_strip(strcpy(copy, letter), "\t-,"), sum);
    sum = digest(tn_slug(strcpy(copy, letter)), sum);
    printf("letter %lu %08lx\n", (unsigned long)strlen(copy), sum);
    return 0;
}
