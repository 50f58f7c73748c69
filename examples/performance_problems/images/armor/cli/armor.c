/* The filter: armor [-d] < in > out */
#include "armor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **arguments)
{
    size_t size = 0, room = 1 << 16, got, made;
    char *in = malloc(room), *out;
    int decode = count == 2 && strcmp(arguments[1], "-d") == 0;

    if (count > 1 && !decode) {
        fprintf(stderr, "usage: armor [-d] < in > out\n");
        return 2;
    }
    while (in != NULL && (got = fread(in + size, 1, room - size, stdin)) > 0) {
        size += got;
        if (size == room)
            in = realloc(in, room *= 2);
    }
    if (in == NULL)
        return 1;
    out = decode ? (char *)armor_decode(in, size, &made) : armor_encode((unsigned char *)in, size, 76, &made);
    free(in);
    if (out == NULL) {
        fprintf(stderr, "armor: this is no base64\n");
        return 1;
    }
    fwrite(out, 1, made, stdout);
    free(out);
    return 0;
}
