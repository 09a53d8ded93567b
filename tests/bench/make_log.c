#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <roda/history.h>

#include "../../plugins/log/record.h"

/*
 * A log of any size, quickly: what a broker would have written that was told all of it, with the
 * plugin's own record.c, and in the places that its documents say.
 *
 *   make-log DIRECTORY SEGMENT_BYTES TEXT_BYTES clean|killed ROOM:COUNT...
 *
 * The rooms of a partition talk in turn, each as often as its share of all messages says, one
 * message a millisecond of made-up time. "clean" ends each newest segment with LOG_END, "killed"
 * does not.
 */

#define BUFFER_BYTES (1u << 20)
#define ROOMS_MAX    4096u
#define START_NS     INT64_C(1700000000000000000)

struct room {
    struct log_room_record state; /* as its LOG_ROOM says */
    uint64_t count, said;
    uint32_t partition;
    char name[LOG_NAME_MAX];
};

struct out { /* the tail of the partition at hand */
    const char *directory;
    uint32_t partition;
    uint64_t segment_bytes, base, end;
    int fd;
    size_t used;
    char bytes[BUFFER_BYTES];
};

static struct room rooms[ROOMS_MAX];
static uint32_t n_rooms;
static char scratch[LOG_RECORD_MAX], text[65536];
static size_t text_bytes;

static void die(const char *what)
{
    fprintf(stderr, "make-log: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- bytes ------------------------------------------------------------------------------ */

static void flush(struct out *out)
{
    for (size_t at = 0; at < out->used;) {
        ssize_t n = write(out->fd, out->bytes + at, out->used - at);
        if (n < 0)
            die("write");
        at += (size_t)n;
    }
    out->used = 0;
}

static void put(struct out *out, const char *bytes, size_t len)
{
    if (out->used + len > BUFFER_BYTES)
        flush(out);
    memcpy(out->bytes + out->used, bytes, len);
    out->used += len;
    out->end += len;
}

static void put_record(struct out *out, const struct log_record *record)
{
    size_t len = log_record_encode(record, scratch, sizeof scratch);

    if (!len) {
        errno = EMSGSIZE;
        die("a record");
    }
    put(out, scratch, len);
}

static void close_segment(struct out *out)
{
    if (out->fd < 0)
        return;
    flush(out);
    if (close(out->fd) != 0)
        die("close");
    out->fd = -1;
}

/* Header, where each room of the partition stands, and how it is synced. */
static void open_segment(struct out *out, uint64_t base)
{
    struct log_header header = {.version = LOG_FORMAT_VERSION,
                                .partition = out->partition,
                                .base = base,
                                .segment_bytes = out->segment_bytes,
                                .created_ns = START_NS};
    struct log_record record = {.type = LOG_ROOM};
    char path[4096], name[LOG_NAME_BYTES], bytes[LOG_HEADER_BYTES];
    uint32_t last_id = 0;

    close_segment(out);
    log_segment_name(out->partition, base, name);
    (void)snprintf(path, sizeof path, "%s/%s", out->directory, name);
    out->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (out->fd < 0)
        die(path);
    out->base = out->end = base;
    log_header_encode(&header, bytes);
    put(out, bytes, sizeof bytes);
    for (uint32_t i = 0; i < n_rooms; i++) {
        if (rooms[i].partition != out->partition)
            continue;
        record.room = rooms[i].state;
        if (last_id < rooms[i].state.room)
            last_id = rooms[i].state.room;
        put_record(out, &record);
    }
    record = (struct log_record){.type = LOG_OPEN, .open.ids = last_id};
    put_record(out, &record);
    record = (struct log_record){.type = LOG_START, .start = {.sync = 1, .time_ns = START_NS}};
    record.start.sync_rooms = (struct roda_str){"", 0};
    put_record(out, &record);
}

/* ---- messages --------------------------------------------------------------------------- */

static struct roda_str str(const char *s)
{
    return (struct roda_str){s, strlen(s)};
}

static void say(struct out *out, struct room *room, int64_t time_ns)
{
    struct log_room_record *state = &room->state;
    struct log_record record = {.type = LOG_MESSAGE};
    struct log_message *m = &record.message;
    char front[64];
    int n = snprintf(front, sizeof front, "%s %llu ", room->name,
                     (unsigned long long)state->number + 1);

    memcpy(text, front, (size_t)n);
    *m = (struct log_message){.room = state->room,
                              .kind = RODA_TEXT,
                              .epoch = state->epoch,
                              .number = state->number + 1,
                              .prev = state->number,
                              .time_ns = time_ns,
                              .count = state->count + 1,
                              .person = 1 + room->said % 100,
                              .to = state->name,
                              .subject = {"", 0},
                              .text = {text, text_bytes > (size_t)n ? text_bytes : (size_t)n}};
    for (uint32_t i = 0; i < RODA_PERSON_FIELDS; i++)
        m->sender[i] = (struct roda_str){"", 0};
    m->sender[RODA_PERSON_NICK] = RODA_STR("generator");
    m->sender[RODA_PERSON_DOOR] = RODA_STR("line");
    if (state->n_trees)
        m->back = state->trees[0].root;
    if (out->end - out->base + LOG_FRAME_BYTES + text_bytes + 512 > out->segment_bytes)
        open_segment(out, out->base + out->segment_bytes);
    log_trees_add(state->trees, &state->n_trees, out->end, m->number, time_ns);
    if (state->n_trees > 1) {
        m->jump = state->trees[1].root;
        m->jump_number = state->trees[1].number;
        m->jump_time_ns = state->trees[1].time_ns;
    }
    put_record(out, &record);
    state->number = state->kept = m->number;
    state->time_ns = time_ns;
    state->count = m->count;
    room->said++;
}

/* Who is furthest behind its share speaks next. */
static struct room *next_speaker(uint32_t partition, uint64_t done, uint64_t total)
{
    struct room *best = NULL;
    double most = 0;

    for (uint32_t i = 0; i < n_rooms; i++) {
        struct room *room = &rooms[i];
        double behind;
        if (room->partition != partition || room->said == room->count)
            continue;
        behind = (double)room->count * (double)(done + 1) / (double)total - (double)room->said;
        if (!best || behind > most) {
            best = room;
            most = behind;
        }
    }
    return best;
}

static void fill_partition(struct out *out, int clean)
{
    struct log_record end = {.type = LOG_END};
    uint64_t total = 0;
    uint32_t id = 0;

    for (uint32_t i = 0; i < n_rooms; i++)
        if (rooms[i].partition == out->partition) {
            rooms[i].state.room = ++id;
            total += rooms[i].count;
        }
    if (!total)
        return;
    open_segment(out, 0);
    for (uint64_t done = 0; done < total; done++)
        say(out, next_speaker(out->partition, done, total), START_NS + (int64_t)done * 1000000);
    if (clean)
        put_record(out, &end);
    close_segment(out);
}

static void add_room(const char *argument)
{
    struct room *room = &rooms[n_rooms++];
    const char *colon = strchr(argument, ':');

    if (n_rooms == ROOMS_MAX || !colon || (size_t)(colon - argument) >= sizeof room->name) {
        errno = EINVAL;
        die(argument);
    }
    memcpy(room->name, argument, (size_t)(colon - argument));
    room->count = strtoull(colon + 1, NULL, 10);
    room->state.folded = room->state.name = str(room->name);
    room->state.epoch = 0x1234567 + n_rooms;
    room->partition = roda_room_partition(room->state.folded);
}

int main(int argc, char **argv)
{
    static struct out out;

    if (argc < 6) {
        fprintf(stderr, "usage: make-log DIRECTORY SEGMENT_BYTES TEXT_BYTES clean|killed "
                        "ROOM:COUNT...\n");
        return 2;
    }
    out.directory = argv[1];
    out.segment_bytes = strtoull(argv[2], NULL, 10);
    text_bytes = strtoull(argv[3], NULL, 10);
    if (text_bytes > sizeof text)
        text_bytes = sizeof text;
    memset(text, 'x', sizeof text);
    for (int i = 5; i < argc; i++)
        add_room(argv[i]);
    if (mkdir(out.directory, 0750) != 0 && errno != EEXIST)
        die(out.directory);
    for (out.partition = 0; out.partition < RODA_PARTITIONS; out.partition++) {
        out.fd = -1;
        fill_partition(&out, !strcmp(argv[4], "clean"));
    }
    return 0;
}
