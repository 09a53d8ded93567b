#ifndef RODA_CONF_FILL_H
#define RODA_CONF_FILL_H
/* From the entries of a section to the fields of a struct, by an option table. */
#include <stdbool.h>
#include <stddef.h>

#include "conf/conf.h"
#include "conf/store.h"

struct fill {
    struct conf_store *store;
    struct roda_conf_errors *errors;
    const char *name;              /* of the section, for what is told */
    struct store_section *section; /* NULL: only defaults */
    const char *prefix;            /* of the keys: "" or "rooms." */
    const struct roda_option *table;
    size_t stride;
    const char *directory; /* where relative paths start; NULL: the folder of the file */
    uint32_t only_flags;   /* only options with all of these */
    bool no_defaults;      /* leave what the section does not name */
    bool allow_missing;    /* leave it to the caller to ask for what must be given */
    void *target;
};

/* 0, also if values were wrong (errors tells, their fields have the default); -ENOMEM; -EINVAL: a
 * default in the table is wrong (told). Marks the entries it took as known. */
int fill_section(const struct fill *fill);

/* Tells of each entry of the section that is not known, with the nearest name of the tables (NULL
 * ends them). Keys with a '.' are left out if skip_overrides. */
struct fill_names {
    const struct roda_option *table;
    size_t stride;
    uint32_t only_flags;
};
void fill_unknown(struct roda_conf_errors *errors, struct store_section *section,
                  const struct fill_names *names, bool skip_overrides);

#endif
