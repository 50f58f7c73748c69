/* The command: greymap FILTER RADIUS < in.pgm > out.pgm */
#include "greymap.h"

#include <stdlib.h>
#include <string.h>

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        greymap *(*filter)(const greymap *, int);
    } filters[] = {{"blur", greymap_blur}, {"sharpen", greymap_sharpen}, {"threshold", greymap_threshold}};

    for (size_t i = 0; count == 3 && i < sizeof filters / sizeof *filters; i++) {
        if (strcmp(arguments[1], filters[i].name) != 0)
            continue;
        greymap *image = greymap_read(stdin), *result = image ? filters[i].filter(image, atoi(arguments[2])) : NULL;
        int written = result != NULL && greymap_write(result, stdout);
        greymap_free(image);
        greymap_free(result);
        return written ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    fprintf(stderr, "usage: greymap blur|sharpen|threshold RADIUS < in.pgm > out.pgm\n");
    return 2;
}
