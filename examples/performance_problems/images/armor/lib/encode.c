#include "armor.h"
#include "buffer.h"

const char armor_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *armor_encode(const unsigned char *bytes, size_t size, size_t width, size_t *length)
{
    buffer text;
    size_t column = 0;

    buffer_init(&text);
    for (size_t i = 0; i < size; i += 3) {
        unsigned long group = (unsigned long)bytes[i] << 16;
        if (i + 1 < size)
            group |= (unsigned long)bytes[i + 1] << 8;
        if (i + 2 < size)
            group |= bytes[i + 2];
        for (int letter = 0; letter < 4; letter++) {
            int padding = i + (size_t)letter > size;
            buffer_add(&text, padding ? '=' : (unsigned char)armor_alphabet[group >> (18 - 6 * letter) & 63]);
            if (width > 0 && ++column == width) {
                buffer_add(&text, '\n');
                column = 0;
            }
        }
    }
    if (column > 0)
        buffer_add(&text, '\n');
    return (char *)buffer_take(&text, length);
}
