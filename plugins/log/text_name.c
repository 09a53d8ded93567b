#include "text_name.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * A room's folder is its folded name with percent encoding (RFC 3986 section 2.1, in lower case):
 * a-z, 0-9, '_' and '-' stand for themselves, every other byte is %hh. That is
 *
 *   injective   each byte is written in one way that depends on nothing but the byte, and on
 *               whether it is the first, so a name is read back byte by byte;
 *   safe        no '/', no '.', no control character, no ':' '\' '*' '?' '~';
 *   stable      nothing is left that a file system could fold or normalize: no upper-case letter
 *               and nothing beyond ASCII, so two rooms never meet in one folder;
 *   short       a name has at most 64 bytes (a pair of nicks 66), so a folder at most 198.
 *
 * First bytes that mean something to others are encoded although they need not be: a '-' (an
 * option to most programs) and the first letter of what DOS made a device (CON, NUL, COM1 ...).
 */

static const char *const devices[] = {"aux", "con", "nul", "prn"};
static const char *const numbered_devices[] = {"com", "lpt"};

static int is_device(struct roda_str name)
{
    if (name.len == 3)
        for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
            if (!memcmp(name.ptr, devices[i], 3))
                return 1;
    if (name.len == 4 && name.ptr[3] >= '0' && name.ptr[3] <= '9')
        for (size_t i = 0; i < sizeof numbered_devices / sizeof *numbered_devices; i++)
            if (!memcmp(name.ptr, numbered_devices[i], 3))
                return 1;
    return 0;
}

static int is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

int text_name(struct roda_str folded, char to[TEXT_NAME_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;

    if (!folded.len)
        return -EINVAL;
    for (size_t i = 0; i < folded.len; i++) {
        char c = folded.ptr[i];
        unsigned byte = (unsigned char)c;
        int plain = is_plain(c) && (i || (c != '-' && !is_device(folded)));
        if (n + (plain ? 1 : 3) > TEXT_NAME_MAX)
            return -ENAMETOOLONG;
        if (plain) {
            to[n++] = c;
            continue;
        }
        to[n++] = '%';
        to[n++] = digits[byte >> 4];
        to[n++] = digits[byte & 15];
    }
    to[n] = '\0';
    return (int)n;
}

/* ---- days ------------------------------------------------------------------------------- */

#define DAY_NS (INT64_C(86400) * 1000000000)

int64_t text_day(int64_t time_ns)
{
    return time_ns / DAY_NS - (time_ns % DAY_NS < 0);
}

int64_t text_day_start_ns(int64_t day)
{
    return day * DAY_NS;
}

/* The proleptic Gregorian calendar, with years that begin in March, so that the day that comes and
 * goes is a year's last; an era is 400 years, 146097 days. Years stay within what nanoseconds in 64
 * bits can say: 1677 to 2262. */
void text_day_name(int64_t day, char to[TEXT_DAY_SIZE])
{
    int64_t from_era = day + 719468; /* 0000-03-01 */
    int64_t era = from_era / 146097;
    int64_t in_era = from_era % 146097;
    int64_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * in_year + 2) / 153; /* 0: March */
    unsigned shown_day = (unsigned)(in_year - (153 * month + 2) / 5 + 1);
    unsigned shown_month = (unsigned)(month < 10 ? month + 3 : month - 9);
    unsigned shown_year = (unsigned)(year + era * 400 + (month >= 10));

    (void)snprintf(to, TEXT_DAY_SIZE, "%04u-%02u-%02u", shown_year % 10000, shown_month % 100,
                   shown_day % 100);
}

static int64_t digits_of(const char *from, size_t n)
{
    int64_t value = 0;

    while (n--) {
        if (*from < '0' || *from > '9')
            return -1;
        value = value * 10 + (*from++ - '0');
    }
    return value;
}

static int64_t day_of(int64_t year, int64_t month, int64_t day)
{
    int64_t from_march = month > 2 ? month - 3 : month + 9;

    year -= month <= 2;
    return year * 365 + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day - 1 -
           719468;
}

int text_day_parse(struct roda_str name, int64_t *ret_day)
{
    char again[TEXT_DAY_SIZE];

    if (name.len != 14 || name.ptr[4] != '-' || name.ptr[7] != '-' ||
        memcmp(name.ptr + 10, ".log", 4) != 0)
        return -EINVAL;
    int64_t year = digits_of(name.ptr, 4), month = digits_of(name.ptr + 5, 2),
            day = digits_of(name.ptr + 8, 2);
    if (year < 1 || month < 1 || day < 1)
        return -EINVAL;
    int64_t days = day_of(year, month, day);
    text_day_name(days, again); /* a month 13 or a 30th of February would come back as another */
    if (memcmp(name.ptr, again, 10) != 0)
        return -EINVAL;
    *ret_day = days;
    return 0;
}
