#include "base/number.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/*
 * Every form is digits, then one of a table of units. The tables are ordered from the largest
 * unit to the smallest, so that the formatter takes the first that divides the value; they are
 * the only place that knows the units. All arithmetic is checked: a number that does not fit is
 * -ERANGE and never a smaller number.
 *
 * A rate without a burst has its count as the burst: what is allowed in one period may come at
 * once. So a rate whose burst equals its count is written without one.
 */
struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit byte_units[] = {{"G", 1 << 30}, {"M", 1 << 20}, {"k", 1 << 10},
                                         {"K", 1 << 10}, {"", 1},        {NULL, 0}};
static const struct unit duration_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000},
                                             {"s", 1000},     {"ms", 1},      {NULL, 0}};
static const struct unit rate_periods[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {NULL, 0}};

/* Reads digits at *text and moves it behind them. */
static int read_digits(const char **text, int64_t base, int64_t *ret_value)
{
    const char *p = *text;
    int64_t value = 0;
    bool fits = true;
    for (; *p >= '0' && *p < '0' + base; p++) {
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_add_overflow(value, *p - '0', &value))
            fits = false;
    }
    if (p == *text)
        return -EINVAL;
    *text = p;
    if (!fits)
        return -ERANGE;
    *ret_value = value;
    return 0;
}

/* The factor of the unit that is the len bytes at text; 0: no such unit. */
static int64_t unit_factor(const struct unit *units, const char *text, size_t len)
{
    for (; units->name; units++) {
        if (strlen(units->name) == len && !memcmp(units->name, text, len))
            return units->factor;
    }
    return 0;
}

static int read_quantity(const char *text, size_t len, const struct unit *units, int64_t *ret_value)
{
    const char *p = text;
    int64_t value = 0;
    if (!len)
        return -EINVAL;
    int error = read_digits(&p, 10, &value);
    if (error == -EINVAL)
        return error;
    size_t digits = (size_t)(p - text);
    int64_t factor = unit_factor(units, p, len - digits);
    if (!factor && digits < len)
        return -EINVAL;
    if (error)
        return error;
    if (!factor && value)
        return -ENOMSG;
    if (__builtin_mul_overflow(value, factor, &value))
        return -ERANGE;
    *ret_value = value;
    return 0;
}

int number_parse_int(const char *text, int64_t *ret_value)
{
    bool negative = *text == '-';
    const char *p = text + negative;
    uint64_t value = 0;
    bool fits = true;
    if (!*p)
        return -EINVAL;
    for (; *p; p++) {
        if (*p < '0' || *p > '9')
            return -EINVAL;
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            fits = false;
    }
    if (!fits || value > (uint64_t)INT64_MAX + negative)
        return -ERANGE;
    *ret_value = negative ? (int64_t)(0 - value) : (int64_t)value;
    return 0;
}

int number_parse_bytes(const char *text, int64_t *ret_bytes)
{
    return read_quantity(text, strlen(text), byte_units, ret_bytes);
}

int number_parse_duration_ms(const char *text, int64_t *ret_ms)
{
    return read_quantity(text, strlen(text), duration_units, ret_ms);
}

/* "burst 10" after the blanks at text; nothing: the count. */
static int read_burst(const char *text, int64_t count, int64_t *ret_burst)
{
    static const char word[] = "burst";
    const char *p = text + strspn(text, " \t");
    if (!*p) {
        *ret_burst = count;
        return p == text ? 0 : -EINVAL;
    }
    if (p == text || strncmp(p, word, sizeof(word) - 1) != 0)
        return -EINVAL;
    p += sizeof(word) - 1;
    size_t blanks = strspn(p, " \t");
    return blanks ? number_parse_bytes(p + blanks, ret_burst) : -EINVAL;
}

int number_parse_rate(const char *text, struct roda_rate *ret_rate)
{
    struct roda_rate rate = {.count = 0, .per_ms = 1000, .burst = 1};
    if (strcmp(text, "off") != 0) {
        size_t count_len = strcspn(text, "/ \t");
        int error = read_quantity(text, count_len, byte_units, &rate.count);
        if (error)
            return error;
        const char *period = text + count_len + (text[count_len] == '/');
        size_t period_len = text[count_len] == '/' ? strcspn(period, " \t") : 0;
        error = read_burst(period + period_len, rate.count, &rate.burst);
        if (error)
            return error;
        if (!period_len)
            return -ENOMSG;
        rate.per_ms = unit_factor(rate_periods, period, period_len);
        if (!rate.per_ms)
            return -EINVAL;
        if (!rate.count || !rate.burst)
            return -ERANGE;
    }
    *ret_rate = rate;
    return 0;
}

int number_parse_mode(const char *text, int64_t *ret_mode)
{
    const char *p = text;
    int64_t mode = 0;
    int error = read_digits(&p, 8, &mode);
    if (*p)
        return -EINVAL;
    if (!error && mode > 07777)
        error = -ERANGE;
    if (!error)
        *ret_mode = mode;
    return error;
}

/* ---- back to text ----------------------------------------------------------------------- */

/* The result of snprintf() as a formatter's. */
static int written(int len, size_t size)
{
    return len >= 0 && (size_t)len < size ? len : -ENOBUFS;
}

static int format_quantity(int64_t value, const struct unit *units, char *buf, size_t size)
{
    if (value < 0)
        return -EINVAL;
    if (!value)
        return written(snprintf(buf, size, "0"), size);
    while (value % units->factor)
        units++;
    return written(snprintf(buf, size, "%" PRId64 "%s", value / units->factor, units->name), size);
}

int number_format_int(int64_t value, char *buf, size_t size)
{
    return written(snprintf(buf, size, "%" PRId64, value), size);
}

int number_format_bytes(int64_t bytes, char *buf, size_t size)
{
    return format_quantity(bytes, byte_units, buf, size);
}

int number_format_duration_ms(int64_t ms, char *buf, size_t size)
{
    return format_quantity(ms, duration_units, buf, size);
}

int number_format_rate(const struct roda_rate *rate, char *buf, size_t size)
{
    char count[NUMBER_TEXT_BYTES], burst[NUMBER_TEXT_BYTES];
    if (!rate->count)
        return written(snprintf(buf, size, "off"), size);
    const struct unit *period = rate_periods;
    while (period->name && period->factor != rate->per_ms)
        period++;
    if (!period->name || rate->burst < 1 ||
        number_format_bytes(rate->count, count, sizeof(count)) < 0 ||
        number_format_bytes(rate->burst, burst, sizeof(burst)) < 0)
        return -EINVAL;
    bool plain = rate->burst == rate->count;
    return written(snprintf(buf, size, "%s/%s%s%s", count, period->name, plain ? "" : " burst ",
                            plain ? "" : burst),
                   size);
}

int number_format_mode(int64_t mode, char *buf, size_t size)
{
    if (mode < 0 || mode > 07777)
        return -EINVAL;
    return written(snprintf(buf, size, "%04" PRIo64, (uint64_t)mode), size);
}
