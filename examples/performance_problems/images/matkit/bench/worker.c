/* Runs the commands of a case on numbered matrices. A case has these words:
 *
 *     new M ROWS COLUMNS VALUES      made by matkit_new; VALUES are 16 hexadecimal digits each, "-" for none
 *     end M ROWS COLUMNS VALUES      the caller's own struct and memory, which ends with the last value
 *     start M ROWS COLUMNS VALUES    the same, with nothing in front of the first value
 *     random M ROWS COLUMNS SEED     made by matkit_new, with values from a generator
 *     go                             what comes behind is measured
 *     multiply M LEFT RIGHT, transpose M FROM, power M FROM EXPONENT, identity M SIZE      M is the result
 *     set M INDEX VALUE, shape M ROWS COLUMNS, free M
 *
 * The results: what the commands return, then all matrices that are left, whole. NaNs are written as one, as their sign
 * and payload depend on the compiler.
 */
#include "protocol.h"

#include "matkit.h"

#include <inttypes.h>

enum { MATRICES = 24 };

struct slot {
    matrix *m;
    matrix own;       /* the caller's struct, with values in `room` */
    struct room room;
    int is_own, is_random;
};

struct command {
    char name[12];
    size_t matrix, left, right; /* or a row and a column */
    double value;
    int is_null;
    struct command *next;
};

struct job {
    struct slot slots[MATRICES];
    struct command *first;
};

static double next_value(char **place)
{
    size_t size;
    unsigned char *bytes = next_bytes(place, &size);
    uint64_t bits = 0;
    double value;
    if (size != sizeof bits)
        stop("no double", "16 digits");
    for (size_t i = 0; i < size; i++)
        bits = bits << 8 | bytes[i];
    memcpy(&value, &bits, sizeof value);
    free(bytes);
    return value;
}

static size_t next_slot(char **place)
{
    long long slot = next_number(place);
    if (slot < 0 || slot >= MATRICES)
        stop("no such matrix", "0 to 23");
    return (size_t)slot;
}

static void fill(double *values, size_t count, char **place)
{
    size_t size;
    unsigned char *bytes = next_bytes(place, &size);
    if (size != count * sizeof *values)
        stop("another number of values", "rows x columns");
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = 0;
        for (size_t byte = 0; byte < sizeof bits; byte++)
            bits = bits << 8 | bytes[i * sizeof bits + byte];
        memcpy(&values[i], &bits, sizeof bits);
    }
    free(bytes);
}

/* Values between -1 and 1, one in four near a power of 2 up to 2^40, so that every addition rounds. */
static void fill_at_random(double *values, size_t count, uint64_t state)
{
    for (size_t i = 0; i < count; i++) { /* splitmix64 */
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        double value = (double)(z >> 11) / 4503599627370496.0 - 1.0;
        values[i] = z % 4 ? value : value * (double)(1ull << (z >> 2) % 41);
    }
}

static void decode_matrix(struct job *job, const char *kind, char **place)
{
    struct slot *slot = &job->slots[next_slot(place)];
    size_t rows = (size_t)next_number(place), columns = (size_t)next_number(place);
    if (strcmp(kind, "end") == 0 || strcmp(kind, "start") == 0) {
        slot->is_own = 1;
        slot->room = room_new(rows * columns * sizeof(double), strcmp(kind, "end") == 0);
        slot->own = (matrix){rows, columns, (double *)(void *)slot->room.start};
        slot->m = &slot->own;
    } else {
        slot->m = matkit_new(rows, columns);
        if (slot->m == NULL)
            stop("no memory", "matkit_new");
    }
    slot->is_random = strcmp(kind, "random") == 0;
    if (slot->is_random)
        fill_at_random(slot->m->values, rows * columns, (uint64_t)next_number(place));
    else
        fill(slot->m->values, rows * columns, place);
}

static struct command *decode_command(const char *name, char **place)
{
    struct command *command = allocate(sizeof *command);
    snprintf(command->name, sizeof command->name, "%s", name);
    command->matrix = next_slot(place);
    if (strcmp(name, "multiply") == 0) {
        command->left = next_slot(place);
        command->right = next_slot(place);
    } else if (strcmp(name, "transpose") == 0 || strcmp(name, "power") == 0) {
        command->left = next_slot(place);
    }
    if (strcmp(name, "shape") == 0 || strcmp(name, "set") == 0)
        command->left = (size_t)next_number(place);
    if (strcmp(name, "shape") == 0 || strcmp(name, "power") == 0 || strcmp(name, "identity") == 0)
        command->right = (size_t)next_number(place);
    if (strcmp(name, "set") == 0)
        command->value = next_value(place);
    return command;
}

static struct job *decode_case(char *text)
{
    struct job *job = allocate(sizeof *job);
    struct command **end = &job->first;
    char *word;
    while ((word = expect_word(&text)), strcmp(word, "go") != 0)
        decode_matrix(job, word, &text);
    while ((word = next_word(&text)) != NULL) {
        *end = decode_command(word, &text);
        end = &(*end)->next;
    }
    return job;
}

static void run_case(struct job *job)
{
    for (struct command *command = job->first; command != NULL; command = command->next) {
        struct slot *slots = job->slots, *slot = &slots[command->matrix];
        matrix *left = slots[command->left % MATRICES].m, *right = slots[command->right % MATRICES].m;
        const char *name = command->name;
        if (strcmp(name, "multiply") == 0)
            slot->m = matkit_multiply(left, right);
        else if (strcmp(name, "transpose") == 0)
            slot->m = matkit_transpose(left);
        else if (strcmp(name, "power") == 0)
            slot->m = matkit_power(left, (unsigned)command->right);
        else if (strcmp(name, "identity") == 0)
            slot->m = matkit_identity(command->right);
        else if (strcmp(name, "set") == 0)
            slot->m->values[command->left] = command->value;
        else if (strcmp(name, "shape") == 0)
            slot->m->rows = command->left, slot->m->columns = command->right;
        else if (strcmp(name, "free") == 0)
            matkit_free(slot->m), slot->m = NULL;
        else
            stop("no such command", name);
        command->is_null = slot->m == NULL;
    }
}

static void encode_value(double value, struct line *line)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value)
        bits = 0x7ff8000000000000u;
    char *digits = line_reserve(line, 16);
    for (int i = 0; i < 16; i++)
        digits[i] = "0123456789abcdef"[bits >> (60 - 4 * i) & 15];
}

static uint64_t digest(const matrix *m)
{
    uint64_t sum = 14695981039346656037u;
    for (size_t i = 0; i < m->rows * m->columns; i++) {
        uint64_t bits;
        memcpy(&bits, &m->values[i], sizeof bits);
        sum = (sum ^ bits) * 1099511628211u;
        sum ^= sum >> 29;
    }
    return sum;
}

static void encode_results(const struct job *job, struct line *line)
{
    for (const struct command *command = job->first; command != NULL; command = command->next)
        line_add(line, "%s %s ", command->name, command->is_null ? "NULL" : "matrix");
    for (size_t i = 0; i < MATRICES; i++) {
        const struct slot *slot = &job->slots[i];
        const matrix *m = slot->m;
        if (m == NULL)
            continue;
        line_add(line, " | %zu: %zu x %zu%s ", i, m->rows, m->columns,
                 slot->is_own && !room_is_whole(&slot->room) ? ", written outside" : "");
        if (slot->is_random) { /* made here from a number, so that it has to be unchanged is all that there is to say */
            line_add(line, "digest %016" PRIx64, digest(m));
            continue;
        }
        for (size_t place = 0; place < m->rows * m->columns; place++)
            encode_value(m->values[place], line);
    }
}

static void free_case(struct job *job)
{
    for (size_t i = 0; i < MATRICES; i++) {
        if (job->slots[i].is_own)
            room_free(&job->slots[i].room);
        else
            matkit_free(job->slots[i].m);
    }
    while (job->first != NULL) {
        struct command *first = job->first;
        job->first = first->next;
        free(first);
    }
    free(job);
}

int main(int count, char **arguments)
{
    return answer_cases(count, arguments);
}
