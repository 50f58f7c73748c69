#include "greymap.h"

#include <stdlib.h>

greymap *greymap_new(int width, int height)
{
    if (width < 1 || height < 1)
        return NULL;
    greymap *image = malloc(sizeof *image);
    uint8_t *pixels = calloc((size_t)width, (size_t)height);
    if (image == NULL || pixels == NULL) {
        free(image);
        free(pixels);
        return NULL;
    }
    *image = (greymap){width, height, pixels};
    return image;
}

void greymap_free(greymap *image)
{
    if (image != NULL)
        free(image->pixels);
    free(image);
}

greymap *greymap_read(FILE *file)
{
    int width, height, most;
    if (fscanf(file, "P5 %d %d %d", &width, &height, &most) != 3 || most < 1 || most > 255 || fgetc(file) == EOF)
        return NULL;
    greymap *image = greymap_new(width, height);
    if (image != NULL && fread(image->pixels, (size_t)width, (size_t)height, file) != (size_t)height) {
        greymap_free(image);
        return NULL;
    }
    return image;
}

int greymap_write(const greymap *image, FILE *file)
{
    fprintf(file, "P5\n%d %d\n255\n", image->width, image->height);
    size_t rows = fwrite(image->pixels, (size_t)image->width, (size_t)image->height, file);
    return rows == (size_t)image->height && fflush(file) == 0;
}
