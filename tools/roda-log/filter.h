#ifndef RODA_LOG_FILTER_H
#define RODA_LOG_FILTER_H
/* Which messages are wanted. */
#include <stddef.h>
#include <stdint.h>

#include "reader.h"

#define FILTER_NAME_BYTES 256u

struct filter {
    struct filter_name {
        size_t len;
        char folded[FILTER_NAME_BYTES];
        int is_past; /* of a room: it has a number above `to` */
    } * rooms;       /* any of them; none: all */
    size_t n_rooms;
    struct filter_name sender;  /* empty: any */
    int64_t since_ns, until_ns; /* since <= time < until */
    uint64_t from, to;          /* numbers */
    int is_private;             /* private messages too */
};

void filter_init(struct filter *filter);
void filter_free(struct filter *filter);
/* 0 or -EINVAL. */
int filter_room(struct filter *filter, const char *name);
int filter_sender(struct filter *filter, const char *name);
int filter_numbers(struct filter *filter, const char *text);

/* The partitions in which wanted messages may stand: bit i for partition i. */
uint32_t filter_partitions(const struct filter *filter);
int filter_takes(struct filter *filter, const struct room *room, const struct log_message *message);
/* Whether no message that is written from now on can be one that is wanted. */
int filter_is_over(const struct filter *filter, int64_t now_ns);
/* 1: two people writing to each other. */
int filter_is_private(const struct room *room, const struct log_message *message);

#endif
