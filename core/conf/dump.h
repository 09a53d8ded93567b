#ifndef RODA_CONF_DUMP_H
#define RODA_CONF_DUMP_H
/*
 * Options as text for people: what is in effect (--dump), what a plugin has (--plugin-help), and
 * the two documents that are made from the option tables, conf/roda.conf and the reference part of
 * roda.conf(5). Each gives its text line by line, without line ends.
 */
#include <stdbool.h>
#include <stddef.h>

#include "conf/conf.h"
#include "conf/sections.h"
#include "roda/plugin.h"

typedef void conf_line_fn(void *arg, const char *line);

/* The whole configuration with defaults, each option with the place it came from. Loading the text
 * gives the same configuration. */
void conf_dump(const struct conf *conf, conf_line_fn *fn, void *arg);

/* Options under their section, and where they come from. */
struct conf_options {
    const char *name;                /* of the plugin */
    const char *summary;             /* NULL: none */
    const struct roda_option *table; /* NULL: none */
    size_t stride;
};
void conf_help_plugin(const struct conf_options *plugin, conf_line_fn *fn, void *arg);

/* A section of the commented file. keys: only these options (NULL: all), and NULL ends them. set:
 * "key", "value" ... in effect instead of commented out, and NULL ends them; NULL: none. */
struct conf_example {
    const char *header; /* "listener tcp"; NULL: the options alone */
    const char *about;  /* NULL: none */
    const char *const *keys;
    const char *const *set;
    bool only_set; /* what is set, and without its explanation: it stands above already */
};
void conf_write_example(const struct conf_example *example, const struct conf_options *options,
                        conf_line_fn *fn, void *arg);
/* Comment lines of at most 80 columns. */
void conf_write_comment(const char *text, conf_line_fn *fn, void *arg);

/* The core's sections and then those of the plugins, in scdoc. */
void conf_write_reference(const struct conf_options *plugins, size_t n_plugins, conf_line_fn *fn,
                          void *arg);

#endif
