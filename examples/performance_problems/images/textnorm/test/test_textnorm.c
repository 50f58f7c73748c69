#include "textnorm.h"

#include <stdio.h>
#include <string.h>

static int failed, done;

static void same(const char *what, const char *got, const char *expected)
{
    done++;
    if (strcmp(got, expected) != 0) {
        failed++;
        printf("%s: got \"%s\", expected \"%s\"\n", what, got, expected);
    }
}

#define ON(call, input, expected)                                                                                      \
    do {                                                                                                               \
        char text[200] = input;                                                                                        \
        same(#call " of " #input, call, expected);                                                                     \
    } while (0)

int main(void)
{
    char buffer[] = "  A  b  ";

    ON(tn_fold(text), "", "");
    ON(tn_fold(text), "Hello, WORLD 42 @[`{", "hello, world 42 @[`{");
    ON(tn_fold(text), "\303\204\303\226 Z", "\303\204\303\226 z");

    ON(tn_squeeze(text), "", "");
    ON(tn_squeeze(text), " ", "");
    ON(tn_squeeze(text), " \t\r\n ", "");
    ON(tn_squeeze(text), "a", "a");
    ON(tn_squeeze(text), "a b", "a b");
    ON(tn_squeeze(text), "  a \t b\n\nc  ", "a b c");
    ON(tn_squeeze(text), "a\tb", "a b");
    ON(tn_squeeze(text), "a ", "a");
    ON(tn_squeeze(text), "a\vb  c", "a\vb c");

    ON(tn_strip(text, "lo"), "hello world", "he wrd");
    ON(tn_strip(text, ""), "unchanged", "unchanged");
    ON(tn_strip(text, "xyz"), "xxyyzz", "");
    ON(tn_strip(text, "-"), "--a--b--", "ab");
    ON(tn_strip(text, "\303"), "\303\204x", "\204x");

    ON(tn_slug(text), "", "");
    ON(tn_slug(text), "Hello, World!", "hello-world");
    ON(tn_slug(text), "  --10% off: \"NOW\"--  ", "10-off-now");
    ON(tn_slug(text), "na\303\257ve caf\303\251", "nave-caf");
    ON(tn_slug(text), "\303\251", "");
    ON(tn_slug(text), "a\303\251 b", "a-b");
    ON(tn_slug(text), "!!!", "");
    ON(tn_slug(text), "already-a-slug-7", "already-a-slug-7");

    done++;
    if (tn_squeeze(buffer) != buffer || tn_slug(buffer) != buffer || tn_strip(buffer, "z") != buffer) {
        failed++;
        printf("the string itself is what is returned\n");
    }
    printf("%d tests, %d failed\n", done, failed);
    return failed != 0;
}
