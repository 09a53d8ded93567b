#ifndef RODA_CONF_ERRORS_H
#define RODA_CONF_ERRORS_H
/*
 * Where everything that is wrong with a configuration is collected, so that all of it is told at
 * once and in the order of the files: "path:line: [section].key: value: reason".
 */
#include <stdarg.h>
#include <stddef.h>

#include "roda/plugin.h"

struct conf;

#define CONF_ERRORS_KEPT 200u

enum conf_severity {
    CONF_ERROR,   /* the configuration is not usable */
    CONF_WARNING, /* it is, but probably not as meant */
};

/* Where something stands. file NULL: nowhere, a default. */
struct conf_place {
    const char *file; /* lives as long as the conf or the errors it came with */
    unsigned line;    /* from 1; 0: the file as a whole */
    unsigned order;   /* of the file: 0 is the one that was named, then its includes */
};

/* NULL: out of memory. */
struct roda_conf_errors *conf_errors_new(void);
void conf_errors_free(struct roda_conf_errors *errors); /* NULL is a no-op */

/* section, key and value may be NULL: that part is left out. Everything is copied. Control
 * characters come out escaped. Memory that is out is remembered, see conf_errors_result(). */
void conf_errors_add(struct roda_conf_errors *errors, enum conf_severity severity,
                     struct conf_place place, const char *section, const char *key,
                     const char *value, const char *fmt, ...) RODA_PRINTF(7, 8);
void conf_errors_add_list(struct roda_conf_errors *errors, enum conf_severity severity,
                          struct conf_place place, const char *section, const char *key,
                          const char *value, const char *fmt, va_list args) RODA_PRINTF(7, 0);

/* What roda_conf_error() of the public header refers to until the next call: the plugin of that
 * name and, if not NULL, the listener that overrides its options. plugin NULL: nothing. */
void conf_errors_context(struct roda_conf_errors *errors, const struct conf *conf,
                         const char *plugin, const char *listener);
struct conf_errors_context {
    const struct conf *conf;
    const char *plugin, *listener; /* as given: they live until the context changes */
};
struct conf_errors_context conf_errors_context_of(const struct roda_conf_errors *errors);

size_t conf_errors_count(const struct roda_conf_errors *errors, enum conf_severity severity);
/* 0: nothing is wrong; -EINVAL: an error was added; -ENOMEM: not all could be kept. */
int conf_errors_result(const struct roda_conf_errors *errors);
/* fn once per message, by file and line; then, if there was an error, once with the summary "4
 * errors; configuration not usable". Lines have no line end. Keeps them. Beyond
 * CONF_ERRORS_KEPT messages only their number is known. */
typedef void conf_errors_fn(void *arg, enum conf_severity severity, const char *line);
void conf_errors_each(struct roda_conf_errors *errors, conf_errors_fn *fn, void *arg);

#endif
