#ifndef RODA_CONF_SECTIONS_H
#define RODA_CONF_SECTIONS_H
/* The core's own sections: one option table each, which feeds parser, --dump, the commented
 * conf/roda.conf, roda.conf(5) and the tests. */
#include <stdbool.h>
#include <stddef.h>

#include "roda/plugin.h"

enum sections_kind {
    SECTIONS_LISTENER,
    SECTIONS_PLUGIN,
    SECTIONS_CORE,
    SECTIONS_MESSAGES,
    SECTIONS_LIMITS,
    SECTIONS_N
};

struct sections_entry {
    const char *kind;  /* "listener" */
    bool named;        /* [listener NAME], any number of them */
    const char *about; /* sentences for file and manual */
    const struct roda_option *options;
};

/* In the order of file and manual, by enum sections_kind. */
extern const struct sections_entry sections[SECTIONS_N];

#endif
