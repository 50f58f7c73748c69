/* The command: wordtab [ROWS] < text */
#include "words.h"

#include <stdio.h>
#include <stdlib.h>

int main(int count, char **arguments)
{
    size_t size = 0, got, most = count > 1 ? strtoul(arguments[1], NULL, 10) : 20;
    char *text = NULL;
    do {
        text = realloc(text, size + 65536);
        if (text == NULL)
            return EXIT_FAILURE;
        got = fread(text + size, 1, 65536, stdin);
        size += got;
    } while (got > 0);
    table *t = table_new();
    words_count(t, text, size);
    table_row *rows = table_sorted(t);
    for (size_t i = 0; i < table_size(t) && i < most; i++)
        printf("%7ld %s\n", rows[i].count, rows[i].key);
    free(rows);
    free(text);
    table_free(t);
    return EXIT_SUCCESS;
}
