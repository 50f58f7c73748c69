#include "armor.h"
#include "buffer.h"

#include <string.h>

static int is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

unsigned char *armor_decode(const char *text, size_t length, size_t *size)
{
    buffer bytes;
    unsigned long bits = 0;
    int letters = 0, padding = 0;

    buffer_init(&bytes);
    for (size_t i = 0; i < length; i++) {
        const char *place;
        if (is_blank(text[i]))
            continue;
        if (text[i] == '=') {
            padding++;
            if (letters + padding > 4 || letters < 2)
                goto wrong;
            continue;
        }
        place = text[i] ? strchr(armor_alphabet, text[i]) : NULL;
        if (place == NULL || padding > 0)
            goto wrong;
        bits = bits << 6 | (unsigned long)(place - armor_alphabet);
        if (++letters == 4) {
            buffer_add(&bytes, bits >> 16 & 255);
            buffer_add(&bytes, bits >> 8 & 255);
            buffer_add(&bytes, bits & 255);
            bits = 0;
            letters = 0;
        }
    }
    if (letters > 0) {
        if (letters + padding != 4)
            goto wrong;
        bits <<= 6 * padding;
        if (bits & (padding == 2 ? 0xffff : 0xff))
            goto wrong;
        buffer_add(&bytes, bits >> 16 & 255);
        if (letters == 3)
            buffer_add(&bytes, bits >> 8 & 255);
    }
    return buffer_take(&bytes, size);

wrong:
    buffer_drop(&bytes);
    return NULL;
}
