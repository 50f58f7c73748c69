#include "greymap.h"

#include <stdlib.h>
#include <string.h>

static int run, failed;

static void expect(const char *name, greymap *image, int width, int height, const uint8_t *pixels)
{
    run++;
    if (image == NULL || image->width != width || image->height != height ||
        memcmp(image->pixels, pixels, (size_t)width * (size_t)height) != 0) {
        failed++;
        printf("FAILED %s\n", name);
        for (int i = 0; image != NULL && i < width * height; i++)
            printf("%d%c", image->pixels[i], (i + 1) % width ? ' ' : '\n');
    }
    greymap_free(image);
}

static void expect_none(const char *name, greymap *image)
{
    run++;
    if (image != NULL) {
        failed++;
        printf("FAILED %s\n", name);
    }
    greymap_free(image);
}

static int naive(const greymap *image, int x, int y, int radius)
{
    int sum = 0, count = 0;
    for (int v = y - radius; v <= y + radius; v++)
        for (int u = x - radius; u <= x + radius; u++)
            if (u >= 0 && v >= 0 && u < image->width && v < image->height)
                sum += image->pixels[v * image->width + u], count++;
    return (int)((double)sum / count + 0.5);
}

static void test_random(int width, int height, int radius)
{
    char name[80];
    uint8_t *expected = malloc((size_t)width * (size_t)height);
    greymap *image = greymap_new(width, height);
    for (int i = 0; i < width * height; i++)
        image->pixels[i] = (uint8_t)((i * 2654435761u >> 13) ^ (unsigned)(i * radius));
    for (int i = 0; i < width * height; i++)
        expected[i] = (uint8_t)naive(image, i % width, i / width, radius);
    snprintf(name, sizeof name, "%d x %d, radius %d", width, height, radius);
    expect(name, greymap_blur(image, radius), width, height, expected);
    greymap_free(image);
    free(expected);
}

static void test_file(void)
{
    FILE *file = tmpfile();
    uint8_t dots[] = {0, 10, 13, 32, 200, 255};
    greymap image = {3, 2, dots};
    if (file == NULL || !greymap_write(&image, file))
        failed++;
    rewind(file);
    expect("there and back", greymap_read(file), 3, 2, dots);
    rewind(file);
    fputs("P6\n3", file);
    rewind(file);
    expect_none("another format", greymap_read(file));
    fclose(file);
}

int main(void)
{
    uint8_t one[] = {77}, row[] = {0, 0, 90, 0, 0}, square[] = {10, 20, 30, 40, 50, 60, 70, 80, 90};
    greymap single = {1, 1, one}, line = {5, 1, row}, nine = {3, 3, square};

    expect("one pixel", greymap_blur(&single, 4), 1, 1, one);
    expect("radius 0", greymap_blur(&nine, 0), 3, 3, square);
    expect("a line", greymap_blur(&line, 1), 5, 1, (uint8_t[]){0, 30, 30, 30, 0});
    expect("halves upwards", greymap_blur(&line, 2), 5, 1, (uint8_t[]){30, 23, 18, 23, 30});
    expect("a square", greymap_blur(&nine, 1), 3, 3, (uint8_t[]){30, 35, 40, 45, 50, 55, 60, 65, 70});
    expect("a large radius", greymap_blur(&nine, 50), 3, 3, (uint8_t[]){50, 50, 50, 50, 50, 50, 50, 50, 50});
    expect("sharpen", greymap_sharpen(&line, 1), 5, 1, (uint8_t[]){0, 0, 150, 0, 0});
    expect("threshold", greymap_threshold(&nine, 1), 3, 3, (uint8_t[]){0, 0, 0, 0, 255, 255, 255, 255, 255});
    expect_none("a negative radius", greymap_blur(&nine, -1));
    expect_none("no width", greymap_new(0, 3));
    test_random(31, 17, 1);
    test_random(17, 31, 3);
    test_random(40, 9, 12);
    test_random(64, 48, 7);
    test_file();
    printf("%d run, %d failed\n", run, failed);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
