#include "words.h"

enum { LONGEST = 63 };

static char letter(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c + ('a' - 'A'));
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '\0';
}

size_t words_count(table *t, const char *text, size_t length)
{
    char word[LONGEST];
    size_t words = 0, size = 0;
    for (size_t i = 0; i <= length; i++) {
        char c = i < length ? letter(text[i]) : '\0';
        if (c != '\0') {
            if (size < LONGEST)
                word[size++] = c;
        } else if (size > 0) {
            table_count(t, word, size, 1);
            words++;
            size = 0;
        }
    }
    return words;
}
