#include "textnorm.h"

#include <string.h>

static int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static int is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Removes the byte at a place; what follows it moves up. */
static void remove_at(char *text, size_t place)
{
    memmove(text + place, text + place + 1, strlen(text + place));
}

char *tn_fold(char *text)
{
    size_t i;
    for (i = 0; i < strlen(text); i++)
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] = (char)(text[i] - 'A' + 'a');
    return text;
}

char *tn_squeeze(char *text)
{
    size_t i = 0;
    while (i < strlen(text)) {
        if (!is_space(text[i])) {
            i++;
        } else if (i == 0 || text[i + 1] == '\0' || is_space(text[i + 1])) {
            remove_at(text, i);
            if (i > 0 && text[i] == '\0' && is_space(text[i - 1]))
                i--;
        } else {
            text[i++] = ' ';
        }
    }
    return text;
}

char *tn_strip(char *text, const char *unwanted)
{
    size_t i = 0;
    while (i < strlen(text)) {
        if (strchr(unwanted, text[i]) != NULL)
            remove_at(text, i);
        else
            i++;
    }
    return text;
}

char *tn_slug(char *text)
{
    size_t i;
    tn_fold(text);
    for (i = 0; i < strlen(text); i++) {
        if ((unsigned char)text[i] >= 128) {
            remove_at(text, i);
            i--;
        } else if (!is_word(text[i])) {
            text[i] = ' ';
        }
    }
    tn_squeeze(text);
    for (i = 0; i < strlen(text); i++)
        if (text[i] == ' ')
            text[i] = '-';
    return text;
}
