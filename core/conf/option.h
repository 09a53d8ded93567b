#ifndef RODA_CONF_OPTION_H
#define RODA_CONF_OPTION_H
/*
 * One option: from text to its field and back. What is wrong comes back as a reason in words,
 * ready to stand behind "[section].key: value: ".
 */
#include <stddef.h>
#include <stdint.h>

#include "conf/store.h"
#include "roda/plugin.h"

/* Types of the core's own options, beside RODA_T_*. */
enum {
    OPTION_T_WORKERS = 0x1000, /* auto, or a number (int64_t; 0: auto) */
    OPTION_T_AMOUNT,           /* 512M or 25% (struct conf_amount) */
};

#define OPTION_REASON_BYTES 512
#define OPTION_TEXT_BYTES   16384 /* what a list of the longest kind takes as text */

struct option_value {
    const struct roda_option *option;
    struct conf_store *store; /* for texts and lists */
    const char *directory;    /* where a relative path starts; NULL: paths stay as written */
    const char *const *texts; /* as written; more than one only for a list */
    size_t n_texts;
};

/* 0 with the field written; -EINVAL with a reason; -ENOMEM. */
int option_parse(const struct option_value *value, void *ret_field,
                 char reason[OPTION_REASON_BYTES]);
/* The field as one would write it; cut at size. Returns buf. */
const char *option_format(const struct roda_option *option, const void *field, char *buf,
                          size_t size);

size_t option_field_bytes(uint32_t type);    /* 0: no such type */
const char *option_type_name(uint32_t type); /* "duration" */
/* "1s to 1h", "at most 65535", "stderr or syslog"; "" if anything goes. Returns buf. */
const char *option_range(const struct roda_option *option, char *buf, size_t size);
/* The i-th entry of a table whose entries are stride bytes; NULL behind the last. */
const struct roda_option *option_at(const struct roda_option *table, size_t stride, size_t i);
const struct roda_option *option_find(const struct roda_option *table, size_t stride,
                                      const char *name);
/* The length of the i-th of the choices "a|b|c", with *ret_name; 0: there is none. */
size_t option_choice(const char *choices, size_t i, const char **ret_name);

#endif
