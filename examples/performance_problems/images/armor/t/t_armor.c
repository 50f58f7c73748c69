#include "armor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tests, wrong;

static void is(int right, const char *what)
{
    tests++;
    if (!right) {
        wrong++;
        printf("not so: %s\n", what);
    }
}

static void encodes(const char *bytes, size_t size, size_t width, const char *expected)
{
    size_t length = 12345;
    char *text = armor_encode((const unsigned char *)bytes, size, width, &length);
    is(text != NULL && length == strlen(expected) && strcmp(text, expected) == 0, expected);
    free(text);
}

static void decodes(const char *text, const char *expected, size_t size)
{
    size_t got = 12345;
    unsigned char *bytes = armor_decode(text, strlen(text), &got);
    is(bytes != NULL && got == size && memcmp(bytes, expected, size) == 0 && bytes[size] == 0, text);
    free(bytes);
}

static void refuses(const char *text, size_t length)
{
    size_t got;
    unsigned char *bytes = armor_decode(text, length, &got);
    is(bytes == NULL, text);
    free(bytes);
}

static void there_and_back(size_t size, size_t width)
{
    size_t length, got;
    unsigned char *bytes = malloc(size + 1), *again;
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)(i * i * 31 + i * 7 + size);
    char *text = armor_encode(bytes, size, width, &length);
    again = armor_decode(text, length, &got);
    is(again != NULL && got == size && memcmp(again, bytes, size) == 0, "there and back");
    free(bytes), free(text), free(again);
}

int main(void)
{
    static const char *const plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"};
    static const char *const coded[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    static const char *const bad[] = {"Z",    "Zg",   "Zg=",      "Zg===",    "=",    "Z===",  "Zm9v=", "Zg==Zg==", "Zm9-",
                                      "Zm9_", "Zm9v.", "Zh==",    "Zm9=",     "====", "Zg=a",  "Zm\3779"};
    for (size_t i = 0; i < 7; i++) {
        encodes(plain[i], i, 0, coded[i]);
        decodes(coded[i], plain[i], i);
    }
    encodes("\377\377\276\0\20", 5, 0, "//++ABA=");
    encodes("foobar", 6, 4, "Zm9v\nYmFy\n");
    encodes("foobar", 6, 5, "Zm9vY\nmFy\n");
    encodes("fooba", 5, 8, "Zm9vYmE=\n");
    encodes("f", 1, 3, "Zg=\n=\n");
    encodes("", 0, 76, "");
    decodes(" Zm\r\n9v\tYg =\n= \n", "foob", 4);
    decodes("//++ABA=", "\377\377\276\0\20", 5);
    decodes(" \n", "", 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuses(bad[i], strlen(bad[i]));
    refuses("Zm9\0", 4);
    for (size_t size = 0; size < 70; size++)
        there_and_back(size, size % 9);
    there_and_back(5000, 76);
    printf("%d of %d right\n", tests - wrong, tests);
    return wrong ? 1 : 0;
}
