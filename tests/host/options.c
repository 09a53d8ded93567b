#include "inside.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * A small reader of "key = value" lines for option tables, as conf files are read: defaults
 * first, then what is given; unknown keys, wrong types and values out of range are errors.
 * Memory of texts and lists is the conf's; a listener's copy shares what it does not override.
 */

static const struct roda_option *option_at(const struct instance *i, size_t n)
{
    const char *table = (const char *)i->plugin.options;
    const struct roda_option *o =
        table ? (const struct roda_option *)(const void *)(table + n * i->plugin.option_size)
              : NULL;

    return o && o->name ? o : NULL;
}

static void *field(void *conf, const struct roda_option *o)
{
    return (char *)conf + o->offset;
}

/* digits, then the unit that is left in *at */
static bool number(const char **at, int64_t *ret)
{
    char *end;

    errno = 0;
    long long value = strtoll(*at, &end, 10);
    if (end == *at || errno)
        return false;
    *at = end;
    *ret = value;
    return true;
}

static bool scaled(const char **at, int64_t *ret)
{
    static const char units[] = "kMG";
    int64_t value;

    if (!number(at, &value))
        return false;
    const char *unit = **at ? strchr(units, **at) : NULL;
    if (unit) {
        for (const char *u = units; u <= unit; u++)
            value *= 1024;
        ++*at;
    }
    *ret = value;
    return true;
}

static bool duration(const char *text, int64_t *ret)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    int64_t value;

    if (!number(&text, &value))
        return false;
    if (!value && !*text) {
        *ret = 0;
        return true;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (!strcmp(text, units[i].unit)) {
            *ret = value * units[i].ms;
            return true;
        }
    return false;
}

static bool rate(const char *text, struct roda_rate *ret)
{
    struct roda_rate r = {.burst = 1};

    if (!strcmp(text, "off")) {
        *ret = (struct roda_rate){.per_ms = 1000, .burst = 1};
        return true;
    }
    if (!scaled(&text, &r.count) || *text++ != '/')
        return false;
    r.per_ms = *text == 's' ? 1000 : *text == 'm' ? 60000 : *text == 'h' ? 3600000 : 0;
    if (!r.per_ms)
        return false;
    text++;
    if (!strncmp(text, " burst ", 7)) {
        text += 7;
        if (!scaled(&text, &r.burst))
            return false;
    }
    *ret = r;
    return !*text && r.count >= 0 && r.burst >= 1;
}

static bool choice(const char *choices, const char *text, int64_t *ret)
{
    size_t len = strlen(text);

    for (int64_t n = 0; *choices; n++) {
        size_t word = strcspn(choices, "|");
        if (word == len && !memcmp(choices, text, len)) {
            *ret = n;
            return true;
        }
        choices += word + (choices[word] == '|');
    }
    return false;
}

static void list_free(struct roda_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free((char *)(uintptr_t)list->items[i].ptr);
    free((struct roda_str *)(uintptr_t)list->items);
    *list = (struct roda_list){0};
}

static void list_add(struct roda_list *list, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, ","), skip = len + (text[len] == ',');
        struct roda_str item = {text, len};
        while (item.len && isspace((unsigned char)*item.ptr)) {
            item.ptr++;
            item.len--;
        }
        while (item.len && isspace((unsigned char)item.ptr[item.len - 1]))
            item.len--;
        text += skip;
        if (!item.len)
            continue;
        struct roda_str *more = get((list->n + 1) * sizeof *more);
        if (list->n)
            memcpy(more, list->items, list->n * sizeof *more);
        more[list->n] = (struct roda_str){copy_text(item), item.len};
        free((struct roda_str *)(uintptr_t)list->items);
        list->items = more;
        list->n++;
    }
}

static bool in_range(const struct roda_option *o, int64_t value)
{
    return (!o->min && !o->max) || (value >= o->min && value <= o->max);
}

static bool set_text(void *to, const struct roda_option *o, const char *text, bool owned)
{
    char **at = to;

    if (!in_range(o, (int64_t)strlen(text)))
        return false;
    if (owned)
        free(*at);
    *at = copy_text((struct roda_str){text, strlen(text)});
    return true;
}

static bool set_number(void *to, const struct roda_option *o, const char *text)
{
    int64_t value = 0;
    bool good = false;

    switch (o->type) {
    case RODA_T_INT:
        good = number(&text, &value) && !*text;
        break;
    case RODA_T_BYTES:
        good = scaled(&text, &value) && !*text;
        break;
    case RODA_T_MS:
        good = duration(text, &value);
        break;
    case RODA_T_CHOICE:
        good = choice(o->choices, text, &value);
        break;
    case RODA_T_MODE: {
        char *end;
        value = (int64_t)strtol(text, &end, 8);
        good = *text && !*end && value >= 0 && value <= 07777;
        break;
    }
    default:
        break;
    }
    if (!good || (o->type != RODA_T_CHOICE && !in_range(o, value)))
        return false;
    memcpy(to, &value, sizeof value);
    return true;
}

/* owned: what is there may be freed. */
static bool set(void *conf, const struct roda_option *o, const char *text, bool owned)
{
    void *to = field(conf, o);
    struct roda_rate r;
    int truth;

    switch (o->type) {
    case RODA_T_BOOL:
        truth = !strcmp(text, "yes");
        if (!truth && strcmp(text, "no"))
            return false;
        memcpy(to, &truth, sizeof truth);
        return true;
    case RODA_T_RATE:
        if (!rate(text, &r))
            return false;
        memcpy(to, &r, sizeof r);
        return true;
    case RODA_T_STRING:
    case RODA_T_PATH:
        return set_text(to, o, text, owned);
    case RODA_T_LIST:
        list_add(to, text);
        return in_range(o, (int64_t)((struct roda_list *)to)->n);
    default:
        return set_number(to, o, text);
    }
}

static const struct roda_option *option_find(const struct instance *i, const char *name,
                                             size_t *ret_index)
{
    const struct roda_option *o;

    for (*ret_index = 0; (o = option_at(i, *ret_index)); ++*ret_index)
        if (!strcmp(o->name, name))
            return o;
    return NULL;
}

static char *trimmed(const char *start, const char *end)
{
    while (start < end && isspace((unsigned char)*start))
        start++;
    while (end > start && isspace((unsigned char)end[-1]))
        end--;
    return copy_text((struct roda_str){start, (size_t)(end - start)});
}

static int set_line(struct testhost *h, const struct instance *i, void *conf, const char *key,
                    const char *value, bool *seen, bool listener)
{
    size_t index;
    const struct roda_option *o = option_find(i, key, &index);

    if (!o) {
        set_error(h, "[plugin %s].%s: unknown key", i->plugin.name, key);
        return -EINVAL;
    }
    if (listener && !(o->flags & RODA_OPTION_LISTENER)) {
        set_error(h, "[plugin %s].%s: a listener may not override it", i->plugin.name, key);
        return -EINVAL;
    }
    if (seen[index] && o->type != RODA_T_LIST) {
        set_error(h, "[plugin %s].%s: given twice", i->plugin.name, key);
        return -EINVAL;
    }
    /* The first value replaces the default; what a listener inherits is not its own. */
    if (!seen[index] && o->type == RODA_T_LIST) {
        if (listener)
            *(struct roda_list *)field(conf, o) = (struct roda_list){0};
        else
            list_free(field(conf, o));
    }
    if (!set(conf, o, value, !listener || seen[index])) {
        set_error(h, "[plugin %s].%s: %s: not a value of this option, or out of range",
                  i->plugin.name, key, value);
        return -EINVAL;
    }
    seen[index] = true;
    return 0;
}

static size_t options_count(const struct instance *i)
{
    size_t n = 0;

    while (option_at(i, n))
        n++;
    return n;
}

static int set_defaults(struct testhost *h, const struct instance *i, void *conf)
{
    const struct roda_option *o;

    for (size_t n = 0; (o = option_at(i, n)); n++)
        if (o->initial && !set(conf, o, o->initial, false)) {
            set_error(h, "[plugin %s].%s: its default \"%s\" is not allowed", i->plugin.name,
                      o->name, o->initial);
            return -EINVAL;
        }
    return 0;
}

static int check_given(struct testhost *h, const struct instance *i, const bool *seen)
{
    const struct roda_option *o;

    for (size_t n = 0; (o = option_at(i, n)); n++)
        if (!o->initial && !seen[n]) {
            set_error(h, "[plugin %s].%s: must be given", i->plugin.name, o->name);
            return -EINVAL;
        }
    return 0;
}

/* prefix: only keys "prefix.key", as a listener has them; NULL: plain keys. */
int options_fill(struct testhost *h, const struct instance *i, void *conf, const char *text,
                 const char *prefix, bool defaults)
{
    bool *seen = get(options_count(i) * sizeof *seen);
    size_t prefix_len = prefix ? strlen(prefix) : 0;
    int result = defaults ? set_defaults(h, i, conf) : 0;

    for (const char *line = text ? text : ""; *line && !result;) {
        const char *end = line + strcspn(line, "\n");
        const char *equals = memchr(line, '=', (size_t)(end - line));
        char *key = trimmed(line, equals ? equals : end);
        char *value = equals ? trimmed(equals + 1, end) : NULL;
        const char *name = key;
        line = end + (*end == '\n');
        if (prefix && (strncmp(key, prefix, prefix_len) || key[prefix_len] != '.'))
            name = NULL; /* another plugin's */
        else if (prefix)
            name += prefix_len + 1;
        if (name && *name && *name != '#' && *name != ';') {
            if (value) {
                result = set_line(h, i, conf, name, value, seen, prefix != NULL);
            } else {
                set_error(h, "[plugin %s]: \"%s\" has no '='", i->plugin.name, key);
                result = -EINVAL;
            }
        }
        free(key);
        free(value);
    }
    if (!result && defaults)
        result = check_given(h, i, seen);
    free(seen);
    return result;
}

/* inherited: what it shares with that conf is not its own. */
void options_free(const struct instance *i, void *conf, const void *inherited)
{
    const struct roda_option *o;

    for (size_t n = 0; conf && (o = option_at(i, n)); n++) {
        const void *theirs = inherited ? (const char *)inherited + o->offset : NULL;
        if (o->type == RODA_T_STRING || o->type == RODA_T_PATH) {
            char *mine = *(char **)field(conf, o);
            if (!theirs || mine != *(char *const *)theirs)
                free(mine);
        } else if (o->type == RODA_T_LIST) {
            struct roda_list *mine = field(conf, o);
            if (!theirs || mine->items != ((const struct roda_list *)theirs)->items)
                list_free(mine);
        }
    }
    free(conf);
}
