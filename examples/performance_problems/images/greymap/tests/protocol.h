/* Answers the grader: a line with a case comes in, a line with everything that came out of it goes back.
 *
 *     grader                     worker
 *     the case                   decodes it, says "ready"
 *     "go"                       calls the code under test, says "done", then writes the results
 *
 * The grader's clock runs from "go" to "done"; whatever else takes longer than at the start commit is added. A worker
 * includes this file once and defines the four functions below. All names are static, lines are read and written by
 * system calls, and file descriptor 1 becomes that of errors, so that what the code under test defines or prints does
 * not come between.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct job;  /* a decoded case, and what came out of it */
struct line; /* a line to be written */

static struct job *decode_case(char *text);
static void run_case(struct job *job); /* what is measured */
static void encode_results(const struct job *job, struct line *line);
static void free_case(struct job *job);

static void stop(const char *why, const char *detail)
{
    fprintf(stderr, "worker: %s: %s\n", why, detail);
    _exit(3);
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size + 1);
    if (memory == NULL)
        stop("no memory", "calloc");
    return memory;
}

/* ---- the words of a case ---- */

/* The next word of a text, whose place moves on; NULL at its end. */
static char *next_word(char **place)
{
    char *word = *place + strspn(*place, " ");
    size_t length = strcspn(word, " ");
    if (length == 0)
        return NULL;
    *place = word + length + (word[length] != '\0');
    word[length] = '\0';
    return word;
}

static char *expect_word(char **place)
{
    char *word = next_word(place);
    if (word == NULL)
        stop("the case ends early", "a word is missing");
    return word;
}

static inline long long next_number(char **place)
{
    char *word = expect_word(place), *end;
    long long number = strtoll(word, &end, 10);
    if (*end != '\0')
        stop("no number", word);
    return number;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    stop("no hexadecimal digit", "digits are 0-9a-f");
    return 0;
}

/* Bytes from two digits each; "-" for none. Their number in *size; the caller frees them. */
static inline unsigned char *next_bytes(char **place, size_t *size)
{
    const char *word = expect_word(place);
    size_t i;
    unsigned char *bytes;
    *size = strcmp(word, "-") == 0 ? 0 : strlen(word) / 2;
    bytes = allocate(*size);
    for (i = 0; i < *size; i++)
        bytes[i] = (unsigned char)(hex_digit(word[2 * i]) << 4 | hex_digit(word[2 * i + 1]));
    return bytes;
}

/* ---- memory with nothing behind it, or nothing in front of it ---- */

enum { PAGE = 4096, FILLER = 0xa5 };

struct room {
    unsigned char *start; /* `size` bytes, zeros at first */
    size_t size;
    unsigned char *pages; /* filler around `start`, and one page on either side that may not be touched */
    size_t page_bytes;
};

/* `at_end`: the first byte behind may not be touched; else the first one in front. */
static inline struct room room_new(size_t size, int at_end)
{
    struct room room;
    size_t inner = (size + PAGE - 1) / PAGE * PAGE;
    room.page_bytes = inner + 2 * PAGE;
    room.pages = mmap(NULL, room.page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room.pages == MAP_FAILED || (inner > 0 && mprotect(room.pages + PAGE, inner, PROT_READ | PROT_WRITE) != 0))
        stop("no memory", "mmap");
    memset(room.pages + PAGE, FILLER, inner);
    room.start = room.pages + PAGE + (at_end ? inner - size : 0);
    room.size = size;
    memset(room.start, 0, size);
    return room;
}

static inline int room_is_whole(const struct room *room)
{
    const unsigned char *place;
    for (place = room->pages + PAGE; place < room->pages + room->page_bytes - PAGE; place++)
        if (*place != FILLER && !(place >= room->start && place < room->start + room->size))
            return 0;
    return 1;
}

static inline void room_free(struct room *room)
{
    munmap(room->pages, room->page_bytes);
}

/* ---- lines out ---- */

struct line {
    char *bytes;
    size_t size, room;
};

static char *line_reserve(struct line *line, size_t size)
{
    if (line->size + size > line->room) {
        line->room = 2 * line->room + size;
        line->bytes = realloc(line->bytes, line->room);
        if (line->bytes == NULL)
            stop("no memory", "realloc");
    }
    line->size += size;
    return line->bytes + line->size - size;
}

/* Adds a few words. */
static void line_add(struct line *line, const char *format, ...)
{
    char words[200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    memcpy(line_reserve(line, strlen(words)), words, strlen(words));
}

/* Adds bytes in hexadecimal, "-" for none, behind a blank. */
static inline void line_add_bytes(struct line *line, const void *bytes, size_t size)
{
    const unsigned char *from = bytes;
    char *to;
    if (size == 0) {
        line_add(line, " -");
        return;
    }
    to = line_reserve(line, 2 * size + 1);
    *to++ = ' ';
    for (; size > 0; size--, from++) {
        *to++ = "0123456789abcdef"[*from >> 4];
        *to++ = "0123456789abcdef"[*from & 15];
    }
}

static void write_all(int file, const char *bytes, size_t size)
{
    while (size > 0) {
        long count = syscall(SYS_write, file, bytes, size);
        if (count < 0 && errno != EINTR)
            _exit(0); /* nobody reads any more */
        if (count > 0) {
            bytes += count;
            size -= (size_t)count;
        }
    }
}

/* ---- lines in ---- */

struct reader {
    char *bytes;
    size_t place, size, room;
};

/* The next line without its end, until the next call; NULL at the end of the input. */
static char *read_line(struct reader *reader)
{
    size_t searched = reader->place;
    for (;;) {
        char *end = reader->size > searched ? memchr(reader->bytes + searched, '\n', reader->size - searched) : NULL;
        long count;
        if (end != NULL) {
            char *line = reader->bytes + reader->place;
            *end = '\0';
            reader->place = (size_t)(end + 1 - reader->bytes);
            return line;
        }
        if (reader->place > 0) {
            memmove(reader->bytes, reader->bytes + reader->place, reader->size - reader->place);
            reader->size -= reader->place;
            reader->place = 0;
        }
        searched = reader->size;
        if (reader->room - reader->size < 1 << 16) {
            reader->room = 2 * reader->room + (1 << 16);
            reader->bytes = realloc(reader->bytes, reader->room);
            if (reader->bytes == NULL)
                stop("no memory", "realloc");
        }
        count = syscall(SYS_read, 0, reader->bytes + reader->size, reader->room - reader->size);
        if (count == 0 || (count < 0 && errno != EINTR))
            return NULL;
        if (count > 0)
            reader->size += (size_t)count;
    }
}

/* Answers all cases. With --time there is no "ready", "go" and "done", and the seconds are told at the end. */
static int answer_cases(int count, char **arguments)
{
    int alone = count > 1 && strcmp(arguments[1], "--time") == 0, out = dup(1);
    struct reader reader = {NULL, 0, 0, 0};
    struct line line = {NULL, 0, 0};
    double seconds = 0;
    long cases = 0;
    char *text;
    dup2(2, 1);
    while ((text = read_line(&reader)) != NULL) {
        struct job *job = decode_case(text);
        struct timespec before, after;
        if (!alone) {
            write_all(out, "ready\n", 6);
            text = read_line(&reader);
            if (text == NULL || strcmp(text, "go") != 0)
                stop("no \"go\"", text == NULL ? "end of input" : text);
        }
        clock_gettime(CLOCK_MONOTONIC, &before);
        run_case(job);
        clock_gettime(CLOCK_MONOTONIC, &after);
        if (!alone)
            write_all(out, "done\n", 5);
        seconds += (double)(after.tv_sec - before.tv_sec) + 1e-9 * (double)(after.tv_nsec - before.tv_nsec);
        cases++;
        line.size = 0;
        encode_results(job, &line);
        *line_reserve(&line, 1) = '\n';
        write_all(out, line.bytes, line.size);
        free_case(job);
    }
    if (alone)
        fprintf(stderr, "%ld cases: %.4f s\n", cases, seconds);
    free(reader.bytes);
    free(line.bytes);
    return 0;
}

#endif
