#include "filter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <roda/history.h>

#include "base/text.h"
#include "program.h"

/*
 * Names are compared as the broker compares them: by the form that its own text_fold() makes. A
 * room is known by its LOG_ROOM record; where damage took that away, by what the message itself
 * says. Its name says in which partition it stands, so the others are not read. Private messages
 * stand under the two nicks, "@ana,bob": who asks for such a "room" gets it, who asks for nothing
 * does not get them by accident.
 */

#define FILTER_LATE_NS (INT64_C(10) * 1000000000) /* limits.max_delay, if it is not set */

void filter_init(struct filter *filter)
{
    *filter =
        (struct filter){.since_ns = INT64_MIN, .until_ns = INT64_MAX, .from = 0, .to = UINT64_MAX};
}

void filter_free(struct filter *filter)
{
    free(filter->rooms);
}

static int fold(struct filter_name *to, struct roda_str name)
{
    int len = text_fold(name, to->folded, sizeof(to->folded));

    if (len <= 0)
        return -EINVAL;
    to->len = (size_t)len;
    to->is_past = 0;
    return 0;
}

/* Two nicks in the order in which the log has them. */
static void sort_pair(struct filter_name *pair)
{
    struct filter_name other = {.len = pair->len, .folded = "@"};
    const char *first = pair->folded + 1, *comma = memchr(first, ',', pair->len - 1);
    size_t n, m;
    int order;

    if (!comma)
        return;
    n = (size_t)(comma - first);
    m = pair->len - 2 - n;
    order = memcmp(first, comma + 1, n < m ? n : m);
    if (order < 0 || (!order && n <= m))
        return;
    memcpy(other.folded + 1, comma + 1, m);
    other.folded[1 + m] = ',';
    memcpy(other.folded + 2 + m, first, n);
    *pair = other;
}

int filter_room(struct filter *filter, const char *name)
{
    struct filter_name room;

    if (*name == '#')
        name++;
    if (fold(&room, (struct roda_str){name, strlen(name)}))
        return -EINVAL;
    if (room.folded[0] == '@')
        sort_pair(&room);
    filter->rooms = memory_resize(filter->rooms, (filter->n_rooms + 1) * sizeof(*filter->rooms));
    filter->rooms[filter->n_rooms++] = room;
    return 0;
}

int filter_sender(struct filter *filter, const char *name)
{
    struct roda_str nick = {name, strlen(name)};
    char normal[FILTER_NAME_BYTES];
    int len = text_normal(nick, normal, sizeof(normal));

    if (len < 0 || text_check((struct roda_str){normal, (size_t)len}, RODA_TEXT_NICK))
        return -EINVAL;
    return fold(&filter->sender, nick);
}

static const char *number(const char *at, uint64_t *ret_number)
{
    uint64_t value = 0;

    if (*at < '0' || *at > '9')
        return NULL;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');

        if (value > (UINT64_MAX - digit) / 10)
            return NULL;
        value = value * 10 + digit;
    }
    *ret_number = value;
    return at;
}

int filter_numbers(struct filter *filter, const char *text)
{
    uint64_t from = 0, to = UINT64_MAX;
    const char *at = text;

    if (*at != '-') {
        at = number(at, &from);
        if (!at)
            return -EINVAL;
        if (!*at)
            to = from;
    }
    if (*at == '-' && (at[1] || at != text)) {
        at++;
        if (*at)
            at = number(at, &to);
    }
    if (!at || *at || from > to)
        return -EINVAL;
    filter->from = from;
    filter->to = to;
    return 0;
}

/* A room stands in one for ever, two people's messages in any. */
uint32_t filter_partitions(const struct filter *filter)
{
    uint32_t partitions = 0;

    for (size_t i = 0; i < filter->n_rooms; i++) {
        const struct filter_name *room = &filter->rooms[i];

        if (room->folded[0] == '@')
            return UINT32_MAX;
        partitions |= 1u << roda_room_partition((struct roda_str){room->folded, room->len});
    }
    return filter->n_rooms ? partitions : UINT32_MAX;
}

static int is_name(const struct filter_name *name, struct roda_str folded)
{
    return name->len == folded.len && !memcmp(name->folded, folded.ptr, folded.len);
}

int filter_is_private(const struct room *room, const struct log_message *message)
{
    return (message->flags & RODA_MSG_DIRECT) ||
           (room && room->folded.len && room->folded.ptr[0] == '@');
}

/* NULL: none that is wanted. */
static struct filter_name *wanted_room(const struct filter *filter, const struct room *room,
                                       const struct log_message *message)
{
    struct filter_name name = {.len = 0};
    struct roda_str folded = room ? room->folded : RODA_STR("");

    if (!folded.len && !(message->flags & RODA_MSG_DIRECT) && !fold(&name, message->to))
        folded = (struct roda_str){name.folded, name.len};
    for (size_t i = 0; i < filter->n_rooms; i++)
        if (is_name(&filter->rooms[i], folded))
            return &filter->rooms[i];
    return NULL;
}

int filter_takes(struct filter *filter, const struct room *room, const struct log_message *message)
{
    struct filter_name sender = {.len = 0}, *wanted = NULL;

    if (filter->n_rooms) {
        wanted = wanted_room(filter, room, message);
        if (!wanted)
            return 0;
        wanted->is_past = message->number > filter->to;
    } else if (!filter->is_private && filter_is_private(room, message)) {
        return 0;
    }
    if (message->time_ns < filter->since_ns || message->time_ns >= filter->until_ns ||
        message->number < filter->from || message->number > filter->to)
        return 0;
    if (!filter->sender.len)
        return 1;
    return !fold(&sender, message->sender[RODA_PERSON_NICK]) &&
           is_name(&filter->sender, (struct roda_str){sender.folded, sender.len});
}

/* What was said before a moment may be written a little after it: a message may wait for the disk
 * as long as the broker lets it wait. */
int filter_is_over(const struct filter *filter, int64_t now_ns)
{
    if (filter->until_ns < now_ns - FILTER_LATE_NS)
        return 1;
    for (size_t i = 0; i < filter->n_rooms; i++)
        if (!filter->rooms[i].is_past || filter->rooms[i].folded[0] == '@')
            return 0;
    return filter->n_rooms > 0;
}
