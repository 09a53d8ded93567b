/*
 * Any bytes as a configuration: loading, filling a plugin, looking for leftovers and telling the
 * errors must not go wrong. What loads without an error must come out of the dump as a text that
 * loads without an error and dumps the same values.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "conf/dump.h"

struct sample {
    int64_t number, wait_ms, word;
    int flag;
    const char *text, *path;
    struct roda_list list;
    struct roda_rate rate;
};

#define SAMPLE(f) offsetof(struct sample, f)

static const struct roda_option options[] = {
    {"number", RODA_T_INT, SAMPLE(number), "5", 1, 10, NULL, RODA_OPTION_LISTENER, "a number"},
    {"wait", RODA_T_MS, SAMPLE(wait_ms), "1s", 0, 0, NULL, 0, "a duration"},
    {"word", RODA_T_CHOICE, SAMPLE(word), "two", 0, 0, "one|two|three", 0, "a word"},
    {"flag", RODA_T_BOOL, SAMPLE(flag), "yes", 0, 0, NULL, RODA_OPTION_LISTENER, "a flag"},
    {"text", RODA_T_STRING, SAMPLE(text), "", 0, 0, NULL, 0, "a text"},
    {"log", RODA_T_PATH, SAMPLE(path), "log", 0, 0, NULL, 0, "a path"},
    {"list", RODA_T_LIST, SAMPLE(list), "a, b", 0, 0, NULL, RODA_OPTION_LISTENER, "a list"},
    {"rate", RODA_T_RATE, SAMPLE(rate), "2/s", 0, 0, NULL, RODA_OPTION_LISTENER, "a rate"},
    {NULL, 0, 0, NULL, 0, 0, NULL, 0, NULL},
};

/* A dump: as text to load, and as the values alone. */
struct dump {
    char *text, *values;
    size_t text_len, values_len, size;
    int too_long; /* for the reader: relative paths became absolute */
};

static void add(char *to, size_t *len, size_t size, const char *line, size_t n)
{
    if (*len + n + 1 >= size)
        abort(); /* far larger than any dump of the largest file */
    memcpy(to + *len, line, n);
    to[*len + n] = '\n';
    *len += n + 1;
}

static void add_line(void *arg, const char *line)
{
    struct dump *dump = arg;
    const char *comment = line[0] == ';' ? line : strstr(line, " ;");
    size_t len = strlen(line), kept = comment ? (size_t)(comment - line) : len;

    while (kept > 0 && line[kept - 1] == ' ')
        kept--;
    dump->too_long |= len > CONF_LINE_BYTES_MAX && line[0] != ';';
    add(dump->text, &dump->text_len, dump->size, line, len);
    /* What core.include named is not read again: shown in a comment, if there is any. */
    if (kept > 0 && strncmp(line, "include =", 9) != 0)
        add(dump->values, &dump->values_len, dump->size, line, kept);
}

static void ignore(void *arg, enum conf_severity severity, const char *line)
{
    (void)severity;
    *(size_t *)arg += strlen(line);
}

/* Whether the text is right; then with its dump. */
static int load(const char *text, size_t len, struct dump *dump)
{
    static const struct conf_defaults defaults = {"/s", "/p"};
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = NULL;
    const void *filled;
    size_t told = 0;
    int good = 0;

    if (conf_load_text("/c", text, len, &defaults, errors, &conf) == 0 &&
        conf_plugin_fill(conf, "s", options, sizeof(options[0]), sizeof(struct sample), errors,
                         &filled) == 0) {
        for (size_t i = 0; i < conf->n_listeners; i++)
            (void)conf_listener_fill(conf, conf->listeners[i].name, "s", errors, &filled);
        conf_check_leftovers(conf, errors);
        conf_errors_each(errors, ignore, &told);
        good = conf_errors_result(errors) == 0;
        if (good)
            conf_dump(conf, add_line, dump);
    }
    conf_free(conf);
    conf_errors_free(errors);
    return good;
}

static struct dump dump_new(size_t size)
{
    struct dump dump = {.text = malloc(size), .values = malloc(size), .size = size};

    if (!dump.text || !dump.values)
        abort();
    return dump;
}

static void dump_free(struct dump *dump)
{
    free(dump->text);
    free(dump->values);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    size_t room = (1u << 16) + 64 * size;
    struct dump first = dump_new(room), second = dump_new(2 * room);

    if (load((const char *)bytes, size, &first) && !first.too_long) {
        if (!load(first.text, first.text_len, &second))
            abort();
        if (first.values_len != second.values_len ||
            memcmp(first.values, second.values, first.values_len) != 0)
            abort();
    }
    dump_free(&first);
    dump_free(&second);
    return 0;
}
