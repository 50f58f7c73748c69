#include "buffer.h"

#include <stdlib.h>
#include <string.h>

void buffer_init(buffer *b)
{
    b->bytes = NULL;
    b->size = 0;
}

void buffer_add(buffer *b, unsigned char byte)
{
    unsigned char *more = malloc(b->size + 1);
    if (more == NULL)
        abort();
    if (b->size > 0)
        memcpy(more, b->bytes, b->size);
    more[b->size++] = byte;
    free(b->bytes);
    b->bytes = more;
}

unsigned char *buffer_take(buffer *b, size_t *size)
{
    unsigned char *bytes;
    *size = b->size;
    buffer_add(b, '\0');
    bytes = b->bytes;
    buffer_init(b);
    return bytes;
}

void buffer_drop(buffer *b)
{
    free(b->bytes);
    buffer_init(b);
}
