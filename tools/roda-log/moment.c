#include "moment.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/*
 * All is UTC: what is printed can be given back as an option on any machine. A text is read from
 * the front, each part telling where the next begins; what is left over at the end is an error.
 */
#define SECOND_NS INT64_C(1000000000)

const char *moment_write(int64_t time_ns, int digits, char to[MOMENT_BYTES])
{
    int64_t rest = time_ns % SECOND_NS;
    time_t seconds;
    struct tm tm;
    size_t len;

    if (rest < 0)
        rest += SECOND_NS;
    seconds = (time_t)((time_ns - rest) / SECOND_NS);
    if (time_ns < INT64_MIN + SECOND_NS || !gmtime_r(&seconds, &tm)) {
        (void)snprintf(to, MOMENT_BYTES, "-");
        return to;
    }
    len = strftime(to, MOMENT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    if (digits == 3)
        (void)snprintf(to + len, MOMENT_BYTES - len, ".%03dZ", (int)(rest / 1000000));
    else
        (void)snprintf(to + len, MOMENT_BYTES - len, ".%09dZ", (int)rest);
    return to;
}

/* n digits; returns what stands behind them, or NULL. */
static const char *digits_of(const char *at, int n, int *ret_value)
{
    int value = 0;

    for (int i = 0; at && i < n; i++) {
        if (at[i] < '0' || at[i] > '9')
            return NULL;
        value = value * 10 + (at[i] - '0');
    }
    *ret_value = value;
    return at ? at + n : NULL;
}

static const char *sign_of(const char *at, char sign)
{
    return at && *at == sign ? at + 1 : NULL;
}

static const char *fraction(const char *at, int64_t *ret_ns)
{
    int64_t unit = SECOND_NS / 10;

    *ret_ns = 0;
    if (!at || *at != '.')
        return at;
    if (at[1] < '0' || at[1] > '9')
        return NULL;
    for (at++; *at >= '0' && *at <= '9'; at++, unit /= 10)
        *ret_ns += (*at - '0') * unit;
    return at;
}

/* "Z", "+02:00" or nothing; *ret_s is what to take away. */
static const char *zone(const char *at, int64_t *ret_s)
{
    int hours, minutes, sign;

    *ret_s = 0;
    if (!at || !*at)
        return at;
    if (*at == 'Z' || *at == 'z')
        return at + 1;
    if (*at != '+' && *at != '-')
        return NULL;
    sign = *at == '-' ? -1 : 1;
    at = digits_of(sign_of(digits_of(at + 1, 2, &hours), ':'), 2, &minutes);
    if (at)
        *ret_s = sign * (INT64_C(3600) * hours + 60 * minutes);
    return at;
}

static int parse_date(const char *at, int64_t *ret_time_ns)
{
    int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
    int64_t zone_s = 0, ns = 0, time_s;
    struct tm tm;

    at = digits_of(at, 4, &year);
    at = digits_of(sign_of(at, '-'), 2, &month);
    at = digits_of(sign_of(at, '-'), 2, &day);
    if (at && (*at == 'T' || *at == 't' || *at == ' ')) {
        at = digits_of(at + 1, 2, &hour);
        at = digits_of(sign_of(at, ':'), 2, &minute);
        if (at && *at == ':')
            at = fraction(digits_of(at + 1, 2, &second), &ns);
        at = zone(at, &zone_s);
    }
    if (!at || *at || year < 1970 || year > 2261 || month < 1 || month > 12 || day < 1 ||
        hour > 23 || minute > 59 || second > 60)
        return -EINVAL;
    tm = (struct tm){.tm_year = year - 1900,
                     .tm_mon = month - 1,
                     .tm_mday = day,
                     .tm_hour = hour,
                     .tm_min = minute,
                     .tm_sec = second};
    time_s = timegm(&tm);
    if (tm.tm_mon != month - 1 && day > 28) /* 30 February became March */
        return -EINVAL;
    *ret_time_ns = (time_s - zone_s) * SECOND_NS + ns;
    return 0;
}

static int64_t unit_s(char unit)
{
    static const char units[] = "smhdw";
    static const int64_t seconds[] = {1, 60, 3600, 86400, 604800};
    const char *found = unit ? strchr(units, unit) : NULL;

    return found ? seconds[found - units] : 0;
}

/* "2h", "1d12h" */
static int parse_duration(const char *at, int64_t *ret_ns)
{
    int64_t total_s = 0;

    if (!*at)
        return -EINVAL;
    while (*at) {
        int64_t value = 0, unit;

        if (*at < '0' || *at > '9')
            return -EINVAL;
        for (; *at >= '0' && *at <= '9'; at++) {
            value = value * 10 + (*at - '0');
            if (value > 1000000000)
                return -EINVAL;
        }
        unit = unit_s(*at++);
        if (!unit)
            return -EINVAL;
        total_s += value * unit;
        if (total_s > INT64_C(9000000000))
            return -EINVAL;
    }
    *ret_ns = total_s * SECOND_NS;
    return 0;
}

int moment_parse(const char *text, int64_t now_ns, int64_t *ret_time_ns)
{
    int64_t before_ns;

    if (!strcmp(text, "now")) {
        *ret_time_ns = now_ns;
        return 0;
    }
    if (*text != '-')
        return parse_date(text, ret_time_ns);
    if (parse_duration(text + 1, &before_ns) || before_ns > now_ns)
        return -EINVAL;
    *ret_time_ns = now_ns - before_ns;
    return 0;
}
