#include "log.h"

#include <string.h>

/*
 * Which rooms are kept, and which of them are durable.
 *
 * rooms = *, !secret, ops*      the last pattern that matches decides; "!" in front excludes
 * rooms = !secret               nothing but exclusions: all but these
 * sync_rooms = always: ops, audit, never: chatter
 *                               a mode holds for its name and those behind it, up to the next mode;
 *                               names in front of all modes are "always"
 *
 * Patterns are folded like names before they are compared, so that spelling does not matter.
 * Private conversations ("@a,b") follow private_messages alone.
 */

enum { CHOICE_NAME_MAX = 256 };

static struct roda_str trim(struct roda_str text)
{
    while (text.len && (*text.ptr == ' ' || *text.ptr == '\t')) {
        text.ptr++;
        text.len--;
    }
    while (text.len && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t'))
        text.len--;
    return text;
}

/* A pattern's name, or what a name begins with. */
static struct roda_str name_of(struct roda_str pattern, int *ret_any_end)
{
    pattern = trim(pattern);
    if (pattern.len && *pattern.ptr == '#') {
        pattern.ptr++;
        pattern.len--;
    }
    *ret_any_end = pattern.len && pattern.ptr[pattern.len - 1] == '*';
    pattern.len -= (size_t)*ret_any_end;
    return pattern;
}

static int matches(struct roda_str pattern, struct roda_str folded)
{
    char buf[CHOICE_NAME_MAX];
    int any_end, n;

    pattern = name_of(pattern, &any_end);
    if (!pattern.len)
        return any_end;
    n = roda_text_fold(pattern, buf, sizeof(buf));
    if (n < 0 || (size_t)n > folded.len || memcmp(buf, folded.ptr, (size_t)n) != 0)
        return 0;
    return any_end || (size_t)n == folded.len;
}

/* Nothing but exclusions: the list replaces the default "*", and leaves rooms out of just that. */
static int excludes_only(struct roda_list rooms)
{
    for (size_t i = 0; i < rooms.n; i++) {
        struct roda_str pattern = trim(rooms.items[i]);
        if (!pattern.len || *pattern.ptr != '!')
            return 0;
    }
    return rooms.n > 0;
}

static int kept(const struct log_conf *conf, struct roda_str folded)
{
    int result;

    if (folded.len && *folded.ptr == '@')
        return conf->private_messages;
    result = excludes_only(conf->rooms);
    for (size_t i = 0; i < conf->rooms.n; i++) {
        struct roda_str pattern = trim(conf->rooms.items[i]);
        int not = pattern.len && *pattern.ptr == '!';
        pattern.ptr += not ;
        pattern.len -= (size_t) not ;
        if (matches(pattern, folded))
            result = !not ;
    }
    return result;
}

/* LOG_SYNC_*, or -1. */
static int mode_of(struct roda_str word)
{
    static const char *const modes[] = {"never", "interval", "always"};

    for (int i = 0; i < 3; i++)
        if (word.len == strlen(modes[i]) && !memcmp(word.ptr, modes[i], word.len))
            return i;
    return -1;
}

/* Takes "MODE:" off the front of *item. -1: there is none, -2: an unknown one. */
static int take_mode(struct roda_str *item)
{
    const char *colon = memchr(item->ptr, ':', item->len);
    struct roda_str word;
    int mode;

    if (!colon)
        return -1;
    word = trim((struct roda_str){item->ptr, (size_t)(colon - item->ptr)});
    item->len -= (size_t)(colon + 1 - item->ptr);
    item->ptr = colon + 1;
    mode = mode_of(word);
    return mode < 0 ? -2 : mode;
}

int log_choice_durable(uint32_t sync, struct roda_str sync_rooms, struct roda_str folded)
{
    int mode = LOG_SYNC_ALWAYS, result = (int)sync;

    while (sync_rooms.len) {
        const char *comma = memchr(sync_rooms.ptr, ',', sync_rooms.len);
        size_t len = comma ? (size_t)(comma - sync_rooms.ptr) : sync_rooms.len;
        struct roda_str item = {sync_rooms.ptr, len};
        int own = take_mode(&item);

        if (own >= 0)
            mode = own;
        item = trim(item);
        if (item.len && matches(item, folded))
            result = mode;
        len += comma != NULL;
        sync_rooms.ptr += len;
        sync_rooms.len -= len;
    }
    return result == LOG_SYNC_ALWAYS;
}

size_t log_choice_text(const struct log_conf *conf, char *to, size_t size)
{
    size_t len = 0;

    for (size_t i = 0; i < conf->sync_rooms.n; i++) {
        struct roda_str item = conf->sync_rooms.items[i];
        if (len + item.len + 1 > size)
            break; /* log_choice_check() refuses so long a list */
        if (i)
            to[len++] = ',';
        memcpy(to + len, item.ptr, item.len);
        len += item.len;
    }
    return len;
}

uint32_t log_choice(const struct log_conf *conf, struct roda_str folded)
{
    char text[LOG_SYNC_ROOMS_MAX];
    size_t len;
    uint32_t bits;

    if (!kept(conf, folded))
        return 0;
    bits = RODA_HISTORY_KEPT;
    len = log_choice_text(conf, text, sizeof(text));
    if (log_choice_durable((uint32_t)conf->sync, (struct roda_str){text, len}, folded))
        bits |= RODA_HISTORY_DURABLE;
    if (!conf->announce)
        return bits;
    bits |= RODA_HISTORY_ANNOUNCED;
    if (conf->addresses)
        bits |= RODA_HISTORY_ADDRESSES;
    if (conf->private_messages)
        bits |= RODA_HISTORY_PRIVATE;
    return bits;
}

/* Whether there can be such a room. What a name begins with need not be one itself ("logs/"). */
static int is_possible(struct roda_str pattern)
{
    char buf[CHOICE_NAME_MAX];
    int any_end;
    struct roda_str name = name_of(pattern, &any_end);

    if (!name.len)
        return any_end;
    if (name.len >= sizeof(buf))
        return 0;
    memcpy(buf, name.ptr, name.len);
    buf[name.len] = 'x';
    return !roda_text_check((struct roda_str){buf, name.len + (size_t)any_end}, RODA_TEXT_ROOM);
}

static int refuse(struct roda_conf_errors *errors, const char *option, struct roda_str pattern)
{
    pattern = trim(pattern);
    return roda_conf_error(errors, option,
                           "no room can be called \"%.*s\"; names stand between commas, \"*\" may "
                           "stand at their end",
                           (int)pattern.len, pattern.ptr);
}

static int is_same(struct roda_str left, struct roda_str right)
{
    char a[CHOICE_NAME_MAX], b[CHOICE_NAME_MAX];
    int any_a, any_b, n, m;

    left = name_of(left, &any_a);
    right = name_of(right, &any_b);
    n = left.len ? roda_text_fold(left, a, sizeof(a)) : 0;
    m = right.len ? roda_text_fold(right, b, sizeof(b)) : 0;
    return any_a == any_b && n == m && n >= 0 && !memcmp(a, b, (size_t)n);
}

/* Whether what stands in front of item i of sync_rooms gives this pattern another mode. */
static int has_other_mode(const struct log_conf *conf, size_t i, struct roda_str pattern, int mode)
{
    int other = LOG_SYNC_ALWAYS;

    for (size_t j = 0; j < i; j++) {
        struct roda_str item = conf->sync_rooms.items[j];
        int own = take_mode(&item);
        if (own >= 0)
            other = own;
        if (other != mode && is_same(item, pattern))
            return 1;
    }
    return 0;
}

static int check_sync_rooms(const struct log_conf *conf, struct roda_conf_errors *errors)
{
    int mode = LOG_SYNC_ALWAYS;
    size_t total = 0;

    for (size_t i = 0; i < conf->sync_rooms.n; i++) {
        struct roda_str item = conf->sync_rooms.items[i];
        int own;

        total += item.len + 1;
        own = take_mode(&item);
        item = trim(item);
        if (own == -2)
            return roda_conf_error(errors, "sync_rooms",
                                   "a room stands behind \"always:\", \"interval:\" or \"never:\"");
        if (own >= 0)
            mode = own;
        if (!item.len)
            return roda_conf_error(errors, "sync_rooms", "a room's name is missing");
        if (mode_of(item) >= 0)
            return roda_conf_error(errors, "sync_rooms",
                                   "\"%.*s\" is a mode and stands here without rooms; write "
                                   "%.*s: ops, audit, or #%.*s if that is a room's name",
                                   (int)item.len, item.ptr, (int)item.len, item.ptr, (int)item.len,
                                   item.ptr);
        if (!is_possible(item))
            return refuse(errors, "sync_rooms", item);
        if (has_other_mode(conf, i, item, mode))
            return roda_conf_error(errors, "sync_rooms",
                                   "\"%.*s\" stands behind two modes; leave it behind one",
                                   (int)item.len, item.ptr);
    }
    if (total > LOG_SYNC_ROOMS_MAX)
        return roda_conf_error(errors, "sync_rooms", "at most %u bytes in all",
                               LOG_SYNC_ROOMS_MAX - 1);
    return 0;
}

static int check_rooms(const struct log_conf *conf, struct roda_conf_errors *errors)
{
    for (size_t i = 0; i < conf->rooms.n; i++) {
        struct roda_str item = trim(conf->rooms.items[i]);
        size_t not = item.len && *item.ptr == '!';
        item.ptr += not ;
        item.len -= not ;
        if (!is_possible(item))
            return refuse(errors, "rooms", item);
    }
    return 0;
}

int log_choice_check(const struct log_conf *conf, struct roda_conf_errors *errors)
{
    int sync_rooms = check_sync_rooms(conf, errors), rooms = check_rooms(conf, errors);

    return sync_rooms ? sync_rooms : rooms;
}
