/*
 * Model: one function per type of option that turns text into the field, and one that turns it
 * back; everything else (ranges, reasons, help) works on what they share. A field is written with
 * memcpy and only when all is right, so a wrong value leaves the default in its place. An option
 * with min and max both 0 has no range.
 */
#include "conf/option.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"
#include "base/suggest.h"
#include "base/text.h"
#include "conf/conf.h"

typedef int parse_number_fn(const char *text, int64_t *ret_value);
typedef int format_number_fn(int64_t value, char *buf, size_t size);

/* What the types that are one number have in common. */
struct number_type {
    parse_number_fn *parse;
    format_number_fn *format;
    const char *form; /* "a duration, as 30s or 5m" */
    const char *unit; /* to suggest where it is missing */
};

static const struct number_type number_types[] = {
    [RODA_T_INT] = {number_parse_int, number_format_int, "a number", NULL},
    [RODA_T_BYTES] = {number_parse_bytes, number_format_bytes, "a size, as 512, 64k or 1M", "k"},
    [RODA_T_MS] = {number_parse_duration_ms, number_format_duration_ms,
                   "a duration, as 250ms, 30s, 5m, 12h or 7d", "s"},
    [RODA_T_MODE] = {number_parse_mode, number_format_mode, "octal permission bits, as 0660", NULL},
};

static const struct number_type *number_type(uint32_t type)
{
    bool is_number = type < sizeof(number_types) / sizeof(number_types[0]);

    return is_number && number_types[type].parse ? &number_types[type] : NULL;
}

size_t option_field_bytes(uint32_t type)
{
    switch (type) {
    case RODA_T_BOOL:
        return sizeof(int);
    case RODA_T_INT:
    case RODA_T_BYTES:
    case RODA_T_MS:
    case RODA_T_CHOICE:
    case RODA_T_MODE:
    case OPTION_T_WORKERS:
        return sizeof(int64_t);
    case RODA_T_RATE:
        return sizeof(struct roda_rate);
    case RODA_T_STRING:
    case RODA_T_PATH:
        return sizeof(const char *);
    case RODA_T_LIST:
        return sizeof(struct roda_list);
    case OPTION_T_AMOUNT:
        return sizeof(struct conf_amount);
    default:
        return 0;
    }
}

const char *option_type_name(uint32_t type)
{
    static const char *const names[] = {
        [RODA_T_BOOL] = "yes or no", [RODA_T_INT] = "number",  [RODA_T_BYTES] = "size",
        [RODA_T_MS] = "duration",    [RODA_T_RATE] = "rate",   [RODA_T_STRING] = "text",
        [RODA_T_PATH] = "path",      [RODA_T_CHOICE] = "word", [RODA_T_LIST] = "list",
        [RODA_T_MODE] = "mode",
    };

    if (type == OPTION_T_WORKERS)
        return "number or auto";
    if (type == OPTION_T_AMOUNT)
        return "size or share";
    return type < sizeof(names) / sizeof(names[0]) && names[type] ? names[type] : "unknown";
}

const struct roda_option *option_at(const struct roda_option *table, size_t stride, size_t i)
{
    const struct roda_option *option;

    if (!table)
        return NULL;
    option = (const struct roda_option *)(const void *)((const char *)table + i * stride);
    return option->name ? option : NULL;
}

const struct roda_option *option_find(const struct roda_option *table, size_t stride,
                                      const char *name)
{
    const struct roda_option *option;

    for (size_t i = 0; (option = option_at(table, stride, i)); i++) {
        if (strcmp(option->name, name) == 0)
            return option;
    }
    return NULL;
}

size_t option_choice(const char *choices, size_t i, const char **ret_name)
{
    size_t len;

    for (; choices && *choices; i--) {
        len = strcspn(choices, "|");
        if (i == 0) {
            *ret_name = choices;
            return len;
        }
        choices += len + (choices[len] == '|');
    }
    return 0;
}

/* ---- ranges ----------------------------------------------------------------------------- */

/* What min and max of the option are counted in. */
static void format_bound(const struct roda_option *o, int64_t bound, char *buf, size_t size)
{
    const struct number_type *type = number_type(o->type);

    if (o->type == OPTION_T_AMOUNT)
        type = &number_types[RODA_T_BYTES];
    if (!type || type->format(bound, buf, size) < 0)
        (void)snprintf(buf, size, "%" PRId64, bound);
}

static const char *bound_noun(const struct roda_option *o, int64_t bound)
{
    switch (o->type) {
    case RODA_T_STRING:
    case RODA_T_PATH:
        return bound == 1 ? " byte" : " bytes";
    case RODA_T_LIST:
        return bound == 1 ? " item" : " items";
    default:
        return "";
    }
}

static bool has_range(const struct roda_option *o)
{
    return o->min != 0 || o->max != 0;
}

static const char *range_of_choices(const struct roda_option *o, char *buf, size_t size)
{
    const char *name;
    size_t used = 0, len;

    buf[0] = '\0';
    for (size_t i = 0; (len = option_choice(o->choices, i, &name)) > 0 && used < size; i++) {
        bool last = name[len] == '\0';
        int n = snprintf(buf + used, size - used, "%s%.*s",
                         i == 0 ? ""
                         : last ? " or "
                                : ", ",
                         (int)len, name);
        used += n > 0 ? (size_t)n : 0;
    }
    return buf;
}

const char *option_range(const struct roda_option *o, char *buf, size_t size)
{
    char min[NUMBER_TEXT_BYTES], max[NUMBER_TEXT_BYTES];

    if (o->type == RODA_T_CHOICE)
        return range_of_choices(o, buf, size);
    buf[0] = '\0';
    if (!has_range(o) || o->type == RODA_T_BOOL || o->type == RODA_T_RATE)
        return buf;
    format_bound(o, o->min, min, sizeof(min));
    format_bound(o, o->max, max, sizeof(max));
    if (o->max < o->min)
        (void)snprintf(buf, size, "at least %s%s", min, bound_noun(o, o->min));
    else if (o->min == 0)
        (void)snprintf(buf, size, "at most %s%s", max, bound_noun(o, o->max));
    else
        (void)snprintf(buf, size, "%s to %s%s", min, max, bound_noun(o, o->max));
    return buf;
}

static int wrong(char reason[OPTION_REASON_BYTES], const char *fmt, ...) RODA_PRINTF(2, 3);
static int wrong(char reason[OPTION_REASON_BYTES], const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(reason, OPTION_REASON_BYTES, fmt, args);
    va_end(args);
    return -EINVAL;
}

/* 0 if the amount (a value, a length, a number of items) is within the option's range. */
static int check_range(const struct roda_option *o, int64_t amount, char *reason)
{
    char bound[NUMBER_TEXT_BYTES];

    if (!has_range(o))
        return 0;
    if (amount < o->min) {
        format_bound(o, o->min, bound, sizeof(bound));
        return wrong(reason, "at least %s%s", bound, bound_noun(o, o->min));
    }
    if (o->max >= o->min && amount > o->max) {
        format_bound(o, o->max, bound, sizeof(bound));
        return wrong(reason, "at most %s%s", bound, bound_noun(o, o->max));
    }
    return 0;
}

/* ---- from text -------------------------------------------------------------------------- */

/* Too large to be a number at all: the range says more than "too large" would. */
static int too_large(const struct roda_option *o, const char *text, char *reason)
{
    if (has_range(o) && check_range(o, text[0] == '-' ? INT64_MIN : INT64_MAX, reason) < 0)
        return -EINVAL;
    return wrong(reason, "too large");
}

static int parse_number(const struct roda_option *o, const struct number_type *type,
                        const char *text, int64_t *ret_number, char *reason)
{
    int64_t number;
    int result = type->parse(text, &number);

    switch (result) {
    case 0:
        result = check_range(o, number, reason);
        break;
    case -ENOMSG:
        return wrong(reason, "the unit is missing; did you mean \"%s%s\"?", text, type->unit);
    case -ERANGE:
        return too_large(o, text, reason);
    default:
        return wrong(reason, "not %s", type->form);
    }
    if (result == 0)
        *ret_number = number;
    return result;
}

static int parse_bool(const char *text, int *ret_field, char *reason)
{
    static const char *const yes[] = {"on", "true", "1", "y"};
    static const char *const no[] = {"off", "false", "0", "n"};

    if (strcmp(text, "yes") == 0 || strcmp(text, "no") == 0) {
        *ret_field = text[0] == 'y';
        return 0;
    }
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcasecmp(text, yes[i]) == 0)
            return wrong(reason, "neither yes nor no; did you mean \"yes\"?");
        if (strcasecmp(text, no[i]) == 0)
            return wrong(reason, "neither yes nor no; did you mean \"no\"?");
    }
    return wrong(reason, "neither yes nor no");
}

static int parse_choice(const struct roda_option *o, const char *text, int64_t *ret_field,
                        char *reason)
{
    struct suggest near = suggest_for(text);
    char names[8][SUGGEST_BYTES_MAX], range[OPTION_REASON_BYTES / 2];
    const char *name;
    size_t len;

    for (size_t i = 0; (len = option_choice(o->choices, i, &name)) > 0; i++) {
        if (strlen(text) == len && memcmp(text, name, len) == 0) {
            *ret_field = (int64_t)i;
            return 0;
        }
        if (i < sizeof(names) / sizeof(names[0])) {
            (void)snprintf(names[i], sizeof(names[i]), "%.*s", (int)len, name);
            suggest_offer(&near, names[i]);
        }
    }
    option_range(o, range, sizeof(range));
    if (near.best)
        return wrong(reason, "not %s; did you mean \"%s\"?", range, near.best);
    return wrong(reason, "not %s", range);
}

static int parse_rate(const char *text, struct roda_rate *ret_field, char *reason)
{
    switch (number_parse_rate(text, ret_field)) {
    case 0:
        return 0;
    case -ENOMSG:
        return wrong(reason, "the period is missing; write it as 2/s, 30/m or 2/s burst 10");
    case -ERANGE:
        return wrong(reason, "at least 1 and not that much; \"off\" for no limit");
    default:
        return wrong(reason, "not a rate, as 2/s, 30/m, 2/s burst 10 or off");
    }
}

static int parse_text(const struct option_value *value, const char *text, const char **ret_field,
                      char *reason)
{
    const struct roda_option *o = value->option;
    bool is_path = o->type == RODA_T_PATH && value->directory;
    const char *copy;

    if (check_range(o, (int64_t)strlen(text), reason) < 0)
        return -EINVAL;
    copy = is_path ? store_path(value->store, value->directory, text)
                   : store_copy(value->store, text, strlen(text));
    if (!copy)
        return -ENOMEM;
    *ret_field = copy;
    return 0;
}

/* The next item of "a, b"; NULL: the last one was it. */
static const char *list_next(const char *text, struct roda_str *ret_item)
{
    size_t len = strcspn(text, ",");
    struct roda_str item = {text, len};

    while (item.len && (item.ptr[0] == ' ' || item.ptr[0] == '\t')) {
        item.ptr++;
        item.len--;
    }
    while (item.len && (item.ptr[item.len - 1] == ' ' || item.ptr[item.len - 1] == '\t'))
        item.len--;
    *ret_item = item;
    return text[len] ? text + len + 1 : NULL;
}

static int list_count(const struct option_value *value, size_t *ret_n, char *reason)
{
    struct roda_str item;
    size_t n = 0;

    for (size_t i = 0; i < value->n_texts; i++) {
        const char *text = value->texts[i];

        while (text && value->texts[i][0]) {
            text = list_next(text, &item);
            if (!item.len)
                return wrong(reason, "nothing between two commas, or a comma too many");
            n++;
        }
    }
    *ret_n = n;
    return 0;
}

static int parse_list(const struct option_value *value, struct roda_list *ret_field, char *reason)
{
    struct roda_str item, *items;
    size_t n = 0, at = 0;
    int result = list_count(value, &n, reason);

    if (result == 0)
        result = check_range(value->option, (int64_t)n, reason);
    if (result < 0)
        return result;
    items = store_alloc(value->store, n ? n * sizeof(*items) : 1);
    if (!items)
        return -ENOMEM;
    for (size_t i = 0; i < value->n_texts; i++) {
        const char *text = value->texts[i];

        while (text && value->texts[i][0]) {
            text = list_next(text, &item);
            items[at].ptr = store_copy(value->store, item.ptr, item.len);
            items[at].len = item.len;
            if (!items[at++].ptr)
                return -ENOMEM;
        }
    }
    *ret_field = (struct roda_list){.items = items, .n = n};
    return 0;
}

static int parse_workers(const struct roda_option *o, const char *text, int64_t *ret_field,
                         char *reason)
{
    if (strcmp(text, "auto") == 0) {
        *ret_field = 0;
        return 0;
    }
    if (parse_number(o, &number_types[RODA_T_INT], text, ret_field, reason) == 0)
        return 0;
    return strncmp(reason, "not ", 4) == 0 ? wrong(reason, "neither a number nor auto") : -EINVAL;
}

static int parse_amount(const struct roda_option *o, const char *text,
                        struct conf_amount *ret_field, char *reason)
{
    size_t len = strlen(text);
    struct conf_amount amount = {0, 0};
    char number[NUMBER_TEXT_BYTES];
    int result;

    if (len && text[len - 1] == '%' && len < sizeof(number)) {
        memcpy(number, text, len - 1);
        number[len - 1] = '\0';
        if (number_parse_int(number, &amount.percent) < 0 || amount.percent < 1 ||
            amount.percent > 90)
            return wrong(reason, "a share is 1%% to 90%%");
    } else {
        result = parse_number(o, &number_types[RODA_T_BYTES], text, &amount.bytes, reason);
        if (result < 0)
            return strncmp(reason, "not ", 4) == 0
                       ? wrong(reason, "neither a size, as 512M, nor a share, as 25%%")
                       : result;
    }
    *ret_field = amount;
    return 0;
}

int option_parse(const struct option_value *value, void *ret_field,
                 char reason[OPTION_REASON_BYTES])
{
    const struct roda_option *o = value->option;
    const char *text = value->n_texts ? value->texts[0] : "";
    const struct number_type *number = number_type(o->type);
    union {
        int truth;
        int64_t number;
        const char *text;
        struct roda_rate rate;
        struct roda_list list;
        struct conf_amount amount;
    } field;
    int result;

    if (text[0] == '\0' && o->type != RODA_T_STRING && o->type != RODA_T_PATH &&
        o->type != RODA_T_LIST)
        return o->initial ? wrong(reason, "the value is missing; the default is \"%s\"", o->initial)
                          : wrong(reason, "the value is missing");
    if (number)
        result = parse_number(o, number, text, &field.number, reason);
    else if (o->type == RODA_T_BOOL)
        result = parse_bool(text, &field.truth, reason);
    else if (o->type == RODA_T_CHOICE)
        result = parse_choice(o, text, &field.number, reason);
    else if (o->type == RODA_T_RATE)
        result = parse_rate(text, &field.rate, reason);
    else if (o->type == RODA_T_LIST)
        result = parse_list(value, &field.list, reason);
    else if (o->type == OPTION_T_WORKERS)
        result = parse_workers(o, text, &field.number, reason);
    else if (o->type == OPTION_T_AMOUNT)
        result = parse_amount(o, text, &field.amount, reason);
    else
        result = parse_text(value, text, &field.text, reason);
    if (result == 0)
        memcpy(ret_field, &field, option_field_bytes(o->type));
    return result;
}

/* ---- back to text ----------------------------------------------------------------------- */

static void format_list(const struct roda_list *list, char *buf, size_t size)
{
    size_t used = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < list->n && used < size; i++) {
        int n = snprintf(buf + used, size - used, "%s%s", i ? ", " : "", list->items[i].ptr);
        used += n > 0 ? (size_t)n : 0;
    }
}

static void format_amount(const struct conf_amount *amount, char *buf, size_t size)
{
    if (amount->percent)
        (void)snprintf(buf, size, "%" PRId64 "%%", amount->percent);
    else
        (void)number_format_bytes(amount->bytes, buf, size);
}

static void format_int64(const struct roda_option *o, int64_t number, char *buf, size_t size)
{
    const struct number_type *type = number_type(o->type);
    const char *name = "";
    size_t len;

    if (type) {
        (void)type->format(number, buf, size);
    } else if (o->type == RODA_T_CHOICE) {
        len = option_choice(o->choices, (size_t)number, &name);
        (void)snprintf(buf, size, "%.*s", (int)len, name);
    } else if (number == 0) {
        (void)snprintf(buf, size, "auto");
    } else {
        (void)number_format_int(number, buf, size);
    }
}

const char *option_format(const struct roda_option *o, const void *field, char *buf, size_t size)
{
    int64_t number;
    int truth;
    const char *text;

    buf[0] = '\0';
    switch (o->type) {
    case RODA_T_BOOL:
        memcpy(&truth, field, sizeof(truth));
        (void)snprintf(buf, size, "%s", truth ? "yes" : "no");
        break;
    case RODA_T_RATE:
        (void)number_format_rate(field, buf, size);
        break;
    case RODA_T_STRING:
    case RODA_T_PATH:
        memcpy(&text, field, sizeof(text));
        (void)snprintf(buf, size, "%s", text ? text : "");
        break;
    case RODA_T_LIST:
        format_list(field, buf, size);
        break;
    case OPTION_T_AMOUNT:
        format_amount(field, buf, size);
        break;
    default:
        memcpy(&number, field, sizeof(number));
        format_int64(o, number, buf, size);
    }
    return buf;
}
