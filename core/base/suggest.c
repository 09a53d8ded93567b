#include "base/suggest.h"

#include <string.h>

/*
 * The distance is the Damerau-Levenshtein one in its restricted form (optimal string alignment):
 * insert, delete or replace a letter, or swap two neighbours, each once per place. Only three
 * rows of its table are alive at a time, and they are short, so they live on the stack. Capital
 * letters count as small ones: who types PORT means port.
 */
static size_t min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t rows[3][SUGGEST_BYTES_MAX + 1];
    size_t *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_len; j++)
        last[j] = before[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            int x = lower(a[i - 1]), y = lower(b[j - 1]);
            size_t best = last[j - 1] + (x != y);
            best = min(best, min(last[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && x == lower(b[j - 2]) && lower(a[i - 2]) == y)
                best = min(best, before[j - 2] + 1);
            row[j] = best;
        }
        size_t *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[b_len];
}

struct suggest suggest_for(const char *typed)
{
    size_t len = strlen(typed);
    return (struct suggest){.typed = typed, .len = len, .limit = len < 6 ? 1 : len / 3};
}

void suggest_offer(struct suggest *s, const char *name)
{
    size_t len = strlen(name);
    if (len > SUGGEST_BYTES_MAX || s->len > SUGGEST_BYTES_MAX)
        return;
    size_t least = len > s->len ? len - s->len : s->len - len;
    if (least > s->limit)
        return;
    size_t wrong = distance(s->typed, s->len, name, len);
    if (wrong < s->limit || (wrong == s->limit && !s->best)) {
        s->limit = wrong;
        s->best = name;
    }
}

const char *suggest_name(const char *typed, const char *const *names, size_t n)
{
    struct suggest s = suggest_for(typed);
    for (size_t i = 0; i < n; i++)
        suggest_offer(&s, names[i]);
    return s.best;
}
