#ifndef RODA_TESTS_SIM_POWER_CUT_H
#define RODA_TESTS_SIM_POWER_CUT_H
/*
 * What the files of power_cut share. The model stands in power_cut.c.
 *
 * A message is named by its text, "mCLIENT/SEQUENCE": so whoever is shown one, by whatever way,
 * knows which it is.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel.h"

#include "main/broker.h"

#define ROOMS        5u
#define NUMBERS_MAX  3000000u /* of a room, those skipped after crashes included */
#define CLIENTS_MAX  8u       /* at a time */
#define LIVES_MAX    250u     /* clients over the whole run */
#define MESSAGES_MAX 6000u    /* of one client */

extern const char *const room_names[ROOMS];

enum fate { FATE_NONE, FATE_SENT, FATE_PUBLISHED, FATE_REFUSED };

struct said {
    uint64_t number; /* 0: not known */
    uint8_t room;
    uint8_t fate;
    uint8_t life;       /* of the broker in which it was seen or refused last */
    bool seen;          /* somebody was shown it, or its sender was told its number */
    bool must_keep;     /* seen, and in a durable room or before an end in order */
    bool spoiled;       /* its record was damaged on purpose */
    bool gone_for_sure; /* refused, and the log was well after that */
    bool in_files;
};

struct book { /* what was said and seen over all lives of the broker */
    struct said messages[LIVES_MAX][MESSAGES_MAX];
    uint32_t by_number[ROOMS][NUMBERS_MAX]; /* client * MESSAGES_MAX + sequence + 1; 0: nobody */
    /* In the last reading of a room's history: */
    uint8_t listed[NUMBERS_MAX];
    uint8_t lost[NUMBERS_MAX]; /* said to be lost */
    uint32_t said[LIVES_MAX];  /* messages of each client */
    uint64_t marked;           /* up to here something stands in those two */
    uint64_t highest[ROOMS];   /* seen */
    uint64_t floor[ROOMS];     /* highest when this life of the broker began */
    uint64_t seen, refused;
};

enum scenario { SCENARIO_POWER, SCENARIO_KILL, SCENARIO_MIXED, SCENARIO_FAULTS, SCENARIO_FLIP };
#define SCENARIOS 5u

struct client {
    struct world *world;
    struct sim_client *end; /* NULL: not connected */
    uint32_t id;            /* of this life */
    bool welcomed, entered, ping_pending, sluggish;
    char in[65536];
    size_t in_len;
    char out[32768];
    size_t out_len;
    uint32_t said, answered; /* all of one client's messages are answered in order */
    uint32_t pinged_at;
    uint64_t last[ROOMS];
    /* The reader's: */
    bool reader, reading, done;
    uint32_t room;
    uint64_t asked; /* the number after which this reading began */
    uint64_t since; /* and this page */
    uint64_t got;   /* the last one of this page */
};

struct world {
    uint64_t seed;
    bool loud, failed;
    enum scenario scenario;
    struct sim_kernel *kernel;
    struct broker *broker;
    struct client clients[CLIENTS_MAX], reader;
    uint32_t n_clients, lives;
    uint8_t life; /* of the broker */
    /* The configuration of this life of the broker. */
    uint32_t sync; /* 0 never, 1 interval, 2 always */
    bool sync_some;
    bool heavy;             /* long texts, so that segments end */
    bool flood;             /* all in one room, and the disk is slow */
    bool flooded;           /* in this life or one before */
    bool failed_storage;    /* the disk failed in this life, on purpose */
    bool ever_failed;       /* in this life or one before */
    bool healed;            /* the disk failed in this life, and the log is well again */
    bool cache_only[ROOMS]; /* perhaps: a sync failed, and nobody was left to know of it */
    bool power_failed;      /* in a life before: what was not synced may have holes */
    bool same_sync;         /* sync is the same in all lives */
    bool spoiled;           /* something was damaged on purpose, once */
    bool quiet;             /* nobody says anything new */
    bool accepted[ROOMS];   /* something of the prober's was, since the disk is well again */
    uint32_t prober;
    uint64_t warnings; /* of the log, since the start of this life */
    uint64_t turns;
    struct book book;
};

void fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* power_cut_book.c */
bool is_durable(const struct world *w, uint32_t room);
int room_index(const char *name);
/* A new message; false: this client has said enough. */
bool book_say(struct world *w, uint32_t client, uint32_t sequence, uint32_t room);
void book_see(struct world *w, uint32_t room, uint64_t number, uint32_t client, uint32_t sequence);
/* From history. After a failed fsync and an end before healing this may stand in the page cache
 * alone, which no later fsync tells. */
void book_see_past(struct world *w, uint32_t room, uint64_t number, uint32_t client,
                   uint32_t sequence);
/* The sender was told. */
void book_answer(struct world *w, uint32_t room, uint64_t number, uint32_t client,
                 uint32_t sequence);
void book_refuse(struct world *w, uint32_t client, uint32_t sequence, const char *line);
/* The log is well again: from now on nothing that it refused may be found in it. Before that, a
 * record may have been written which nobody could take back. */
void book_healed(struct world *w);
/* The broker ended in order: all that was seen is on disk. */
void book_stopped(struct world *w);
void book_life(struct world *w);
/* What the reader was given after `since` against what was seen. */
void book_check_history(struct world *w, uint32_t room, uint64_t since);

/* power_cut_crowd.c */
void client_connect(struct world *w, struct client *c);
void client_step(struct world *w, struct client *c);
void client_gone(struct client *c);
/* All that has come already is read; then nobody is there any more. */
void crowd_lost(struct world *w);
bool crowd_calm(const struct world *w);
/* Says something in this room now. */
void client_say(struct client *c, uint32_t room);
void reader_begin(struct world *w);

/* power_cut_files.c: the segments as they stand, read with the plugin's own record.c. Fails if
 * there is anything in them that is no record, or that contradicts the book. */
void files_check(struct world *w, bool clean);
/* Turns some bits over, in memory and on disk. Returns whether the newest segment of a partition
 * was hit. */
bool files_spoil(struct world *w);
uint64_t files_bytes(struct world *w);
/* For people with roda-log: the segments as they stand, into a directory of the real disk. */
void files_copy(struct world *w, const char *directory);

#define LOG_DIRECTORY "/tmp/log"

#endif
