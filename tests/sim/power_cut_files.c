#include "power_cut.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../plugins/log/record.h"

/*
 * The segments, read from the fake disk with the plugin's own record.c, and nothing else of it: so
 * what recovery, history and the chains make of them is not asked here.
 *
 * Everything behind a header must be records up to the end of the file; only after a power cut or
 * damage there may be something else between them. For each room the messages,
 * by number, are held against the book, and against each other: whatever was shown between two
 * neighbours must be admitted by the later one, by its `prev` or by another epoch.
 */

#define FILES_MAX  512u
#define ROOMS_MAX  64u
#define SPOILS_MAX 4u
#define LAST_BYTES 300u

struct segment {
    char path[64];
    uint32_t partition;
    uint64_t base;
    bool newest; /* of its partition */
};

struct kept {
    uint64_t number, prev, epoch, position, back;
    uint32_t client, sequence, partition;
    bool durable, voided;
};

struct reading {
    struct world *w;
    struct segment segments[FILES_MAX];
    size_t n_segments;
    /* room ids of the partition that is read: index + 1; 0: no room of ours */
    uint32_t partition;
    uint8_t room_of[ROOMS_MAX];
    struct kept *kept[ROOMS];
    size_t n[ROOMS], size[ROOMS];
    bool ended;  /* LOG_END is the last record of the newest segment */
    bool copies; /* a broker that was healing has ended: there may be one that is not finished */
};

/* ---- which files there are -------------------------------------------------------------- */

static void add_segment(void *arg, const char *name)
{
    struct reading *r = arg;
    struct segment *s = &r->segments[r->n_segments];

    if (r->n_segments == FILES_MAX) {
        fail(r->w, "more than %u files", FILES_MAX);
        return;
    }
    if (log_segment_parse((struct roda_str){name, strlen(name)}, &s->partition, &s->base)) {
        if (!strstr(name, ".lock") && (!r->copies || !strstr(name, ".segment.copy")))
            fail(r->w, "%s is no segment's name", name);
        return;
    }
    (void)snprintf(s->path, sizeof s->path, "%s/%s", LOG_DIRECTORY, name);
    s->newest = true;
    if (r->n_segments && s[-1].partition == s->partition)
        s[-1].newest = false;
    r->n_segments++;
}

/* copies: of recovery, which may have been broken off */
static void list_segments(struct reading *r, bool copies)
{
    const struct system *system = sim_system(r->w->kernel);
    int result;

    r->copies = copies;
    result = system->list(system->kernel, LOG_DIRECTORY, add_segment, r);

    if (result < 0)
        fail(r->w, "%s cannot be listed: %d", LOG_DIRECTORY, result);
}

static bool may_have_holes(const struct world *w)
{
    return w->spoiled || w->ever_failed || w->power_failed;
}

/* ---- records ---------------------------------------------------------------------------- */

static void take_room(struct reading *r, const struct log_room_record *room)
{
    char name[LOG_NAME_MAX + 1];
    int index;

    if (!room->room || room->room >= ROOMS_MAX || room->folded.len > LOG_NAME_MAX) {
        fail(r->w, "partition %u has a room %u", r->partition, room->room);
        return;
    }
    memcpy(name, room->folded.ptr, room->folded.len);
    name[room->folded.len] = '\0';
    index = room_index(name);
    if (r->room_of[room->room] && r->room_of[room->room] != index + 1)
        fail(r->w, "room %u of partition %u is two rooms", room->room, r->partition);
    r->room_of[room->room] = (uint8_t)(index + 1);
}

static int our_room(struct reading *r, uint32_t id)
{
    if (id < ROOMS_MAX && r->room_of[id])
        return r->room_of[id] - 1;
    if (!may_have_holes(r->w))
        fail(r->w, "partition %u: room %u has no LOG_ROOM before this", r->partition, id);
    return -1;
}

static void take_message(struct reading *r, const struct log_message *m, uint64_t position)
{
    int room = our_room(r, m->room);
    char text[64] = "", name[LOG_NAME_MAX + 1] = "";
    struct kept *k;

    memcpy(name, m->to.ptr, m->to.len < LOG_NAME_MAX ? m->to.len : LOG_NAME_MAX);
    if (room < 0) /* its LOG_ROOM is in a hole */
        room = room_index(name);
    if (room != room_index(name))
        fail(r->w, "%s %llu stands in the files as of %s", name, (unsigned long long)m->number,
             room < 0 ? "no room" : room_names[room]);
    if (room < 0)
        return;
    if (r->n[room] == r->size[room]) {
        r->size[room] = r->size[room] ? 2 * r->size[room] : 1024;
        r->kept[room] = realloc(r->kept[room], r->size[room] * sizeof(struct kept));
        if (!r->kept[room])
            abort();
    }
    k = &r->kept[room][r->n[room]++];
    *k = (struct kept){m->number, m->prev, m->epoch,     position,        m->back,
                       0,         0,       r->partition, m->durable != 0, false};
    memcpy(text, m->text.ptr, m->text.len < sizeof text - 1 ? m->text.len : sizeof text - 1);
    if (sscanf(text, "m%u/%u", &k->client, &k->sequence) != 2)
        fail(r->w, "%s %llu says what nobody said: %.40s", room_names[room],
             (unsigned long long)m->number, text);
}

static void take_void(struct reading *r, const struct log_void *voided)
{
    int room = our_room(r, voided->room);

    for (size_t i = 0; room >= 0 && i < r->n[room]; i++) {
        struct kept *k = &r->kept[room][i];
        if (k->number >= voided->from && k->number <= voided->to)
            k->voided = true;
    }
}

static void take_record(struct reading *r, const struct log_record *record, uint64_t position)
{
    r->ended = record->type == LOG_END;
    switch (record->type) {
    case LOG_ROOM:
        take_room(r, &record->room);
        break;
    case LOG_MESSAGE:
        take_message(r, &record->message, position);
        break;
    case LOG_VOID:
        take_void(r, &record->voided);
        break;
    default:
        break;
    }
}

static void read_segment(struct reading *r, const struct segment *s)
{
    static struct log_record record;
    struct log_header header;
    size_t size = 0, at = LOG_HEADER_BYTES;
    const char *bytes = sim_file_get(r->w->kernel, s->path, &size);

    if (s->partition != r->partition)
        memset(r->room_of, 0, sizeof r->room_of);
    r->partition = s->partition;
    if (!bytes || log_header_decode(bytes, size, &header)) {
        if (!may_have_holes(r->w))
            fail(r->w, "%s has no header (%zu bytes)", s->path, size);
    } else if (header.partition != s->partition || header.base != s->base) {
        fail(r->w, "%s says it is %u, %llx", s->path, header.partition,
             (unsigned long long)header.base);
    }
    while (at < size && !r->w->failed) {
        int result = log_record_decode(bytes + at, size - at, &record);
        if (result && !may_have_holes(r->w))
            fail(r->w, "%s: what stands at %zu of %zu is no record (%d)", s->path, at, size,
                 result);
        if (!result)
            take_record(r, &record, s->base + at);
        at += result ? 1 : record.length;
    }
}

/* ---- against the book ------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    const struct kept *one = a, *other = b;

    if (one->number != other->number)
        return one->number < other->number ? -1 : 1;
    return one->position < other->position ? -1 : one->position > other->position;
}

static void check_kept(struct world *w, uint32_t room, const struct kept *k)
{
    struct said *m = k->client < LIVES_MAX && k->sequence < MESSAGES_MAX
                         ? &w->book.messages[k->client][k->sequence]
                         : NULL;

    if (!m || m->fate == FATE_NONE)
        fail(w, "%s %llu is m%u/%u, which was never said", room_names[room],
             (unsigned long long)k->number, k->client, k->sequence);
    else if (m->room != room)
        fail(w, "%s %llu is m%u/%u, which was said in %s", room_names[room],
             (unsigned long long)k->number, k->client, k->sequence, room_names[m->room]);
    else if (m->gone_for_sure)
        fail(w, "%s %llu is m%u/%u, which was refused", room_names[room],
             (unsigned long long)k->number, k->client, k->sequence);
    else if (m->number && m->number != k->number)
        fail(w, "%s: m%u/%u was shown as %llu and is written as %llu", room_names[room], k->client,
             k->sequence, (unsigned long long)m->number, (unsigned long long)k->number);
    else
        m->in_files = true;
}

/* What was seen between two neighbours must be admitted. */
static void check_gap(struct world *w, uint32_t room, const struct kept *a, const struct kept *b)
{
    bool admitted = b->epoch != a->epoch || b->prev > a->number;

    if (b->prev >= b->number)
        fail(w, "%s: %llu has prev %llu", room_names[room], (unsigned long long)b->number,
             (unsigned long long)b->prev);
    for (uint64_t n = a->number + 1; !admitted && n < b->number && n < NUMBERS_MAX; n++)
        if (w->book.by_number[room][n])
            fail(w, "%s: %llu was shown and is not kept, and %llu says it comes right after %llu",
                 room_names[room], (unsigned long long)n, (unsigned long long)b->number,
                 (unsigned long long)b->prev);
    if (w->spoiled || w->ever_failed || !w->same_sync || !is_durable(w, room))
        return;
    /* What was written and not synced when the power failed has holes, but nobody saw it. */
    for (uint64_t n = a->number + 1; n < b->number && n < NUMBERS_MAX; n++)
        if (w->book.by_number[room][n] || !w->power_failed)
            fail(w, "%s is durable, but %llu is missing", room_names[room], (unsigned long long)n);
    if (b->epoch != a->epoch && !w->power_failed)
        fail(w, "%s is durable, but %llu has the epoch %llx and %llu %llx", room_names[room],
             (unsigned long long)b->number, (unsigned long long)b->epoch,
             (unsigned long long)a->number, (unsigned long long)a->epoch);
}

static void check_room(struct reading *r, uint32_t room)
{
    const struct kept *last = NULL;

    if (r->n[room])
        qsort(r->kept[room], r->n[room], sizeof(struct kept), by_number);
    for (size_t i = 0; i < r->n[room] && !r->w->failed; i++) {
        const struct kept *k = &r->kept[room][i];
        if (k->voided)
            continue;
        check_kept(r->w, room, k);
        if (last && last->number == k->number)
            fail(r->w, "%s %llu stands in the files twice", room_names[room],
                 (unsigned long long)k->number);
        else if (last)
            check_gap(r->w, room, last, k);
        if (last && !r->w->spoiled && k->back > k->position)
            fail(r->w, "%s %llu points forward", room_names[room], (unsigned long long)k->number);
        last = k;
    }
}

static void check_all_kept(struct world *w)
{
    for (uint32_t c = 0; c < LIVES_MAX && c < w->lives && !w->failed; c++)
        for (uint32_t s = 0; s < w->book.said[c]; s++) {
            struct said *m = &w->book.messages[c][s];
            if (m->must_keep && !m->in_files && !m->spoiled)
                fail(w, "m%u/%u (%llu of %s) was shown, must be kept, and is in no file", c, s,
                     (unsigned long long)m->number, room_names[m->room]);
            m->in_files = false;
        }
}

void files_check(struct world *w, bool clean)
{
    static struct reading reading;
    struct reading *r = &reading;

    memset(r, 0, sizeof *r);
    r->w = w;
    list_segments(r, clean && w->failed_storage);
    for (size_t i = 0; i < r->n_segments && !w->failed; i++) {
        read_segment(r, &r->segments[i]);
        if (clean && !w->failed_storage && r->segments[i].newest && !r->ended)
            fail(w, "%s does not end with LOG_END after an end in order", r->segments[i].path);
    }
    for (uint32_t room = 0; room < ROOMS; room++)
        check_room(r, room);
    check_all_kept(w);
    for (uint32_t room = 0; room < ROOMS; room++)
        free(r->kept[room]);
}

/* ---- damage ----------------------------------------------------------------------------- */

/* The record around an offset; what it says is not to be expected any more. */
static void mark_spoiled(struct world *w, const char *bytes, size_t size, size_t offset)
{
    static struct log_record record;
    unsigned client, sequence;
    char text[64] = "";

    for (size_t at = LOG_HEADER_BYTES, n; at < size; at += n) {
        n = log_record_decode(bytes + at, size - at, &record) ? 1 : record.length;
        if (n == 1) /* spoiled before */
            continue;
        if (offset < at || offset >= at + n)
            continue;
        if (w->loud)
            fprintf(stderr, "  spoiled: record of type %d at %zu\n", (int)record.type, at);
        if (record.type != LOG_MESSAGE)
            return;
        memcpy(text, record.message.text.ptr,
               record.message.text.len < 63 ? record.message.text.len : 63);
        if (sscanf(text, "m%u/%u", &client, &sequence) == 2 && client < LIVES_MAX &&
            sequence < MESSAGES_MAX)
            w->book.messages[client][sequence].spoiled = true;
        return;
    }
}

bool files_spoil(struct world *w)
{
    static struct reading reading;
    struct reading *r = &reading;
    const struct segment *s;
    size_t size = 0, from = 0;
    const char *bytes;
    char *copy;

    memset(r, 0, sizeof *r);
    r->w = w;
    list_segments(r, true);
    if (!r->n_segments)
        return false;
    for (unsigned tries = 0; tries < 20; tries++) { /* rather one with something in it */
        s = &r->segments[sim_random(w->kernel, r->n_segments)];
        bytes = sim_file_get(w->kernel, s->path, &size);
        if (bytes && size > 2000)
            break;
    }
    /* What stands last is what could be taken for a torn tail. */
    if (size > LAST_BYTES && !sim_random(w->kernel, 3))
        from = size - LAST_BYTES;
    if (!bytes || !size)
        return false;
    copy = malloc(size);
    if (!copy)
        abort();
    memcpy(copy, bytes, size);
    for (uint64_t n = 1 + sim_random(w->kernel, SPOILS_MAX); n; n--) {
        size_t offset = from + sim_random(w->kernel, size - from);
        if (w->loud)
            fprintf(stderr, "  spoils %s at %zu of %zu\n", s->path, offset, size);
        mark_spoiled(w, bytes, size, offset);
        copy[offset] = (char)(copy[offset] ^ (1 << sim_random(w->kernel, 8)));
    }
    sim_file_put(w->kernel, s->path, copy, size);
    free(copy);
    w->spoiled = true;
    return s->newest;
}

uint64_t files_bytes(struct world *w)
{
    static struct reading reading;
    uint64_t sum = 0;

    memset(&reading, 0, sizeof reading);
    reading.w = w;
    list_segments(&reading, true);
    for (size_t i = 0; i < reading.n_segments; i++) {
        size_t size = 0;
        (void)sim_file_get(w->kernel, reading.segments[i].path, &size);
        sum += size;
    }
    return sum;
}

void files_copy(struct world *w, const char *directory)
{
    static struct reading reading;

    memset(&reading, 0, sizeof reading);
    reading.w = w;
    list_segments(&reading, true);
    for (size_t i = 0; i < reading.n_segments; i++) {
        size_t size = 0;
        const char *bytes = sim_file_get(w->kernel, reading.segments[i].path, &size);
        char path[512];
        FILE *file;
        (void)snprintf(path, sizeof path, "%s%s", directory,
                       strrchr(reading.segments[i].path, '/'));
        file = fopen(path, "we");
        if (!file || fwrite(bytes, 1, size, file) != size)
            perror(path);
        if (file)
            (void)fclose(file);
    }
}
