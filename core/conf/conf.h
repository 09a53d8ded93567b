#ifndef RODA_CONF_CONF_H
#define RODA_CONF_CONF_H
/*
 * The configuration: what the files say, checked and typed, every option filled (from the file or
 * from its default). Made at start-up on the main thread in this order:
 *
 *   conf_load()            files -> struct conf; the core's own sections are checked
 *   (load the plugins of conf->plugins, and those that conf->listeners[].protocol asks for)
 *   conf_plugin_fill()     once per plugin that is loaded, with its option table
 *   conf_listener_fill()   once per listener and plugin that serves it
 *   conf_check_leftovers() what nobody knows
 *   conf_errors_each()     tell; then conf_errors_result() decides
 *
 * From then on nothing changes it, and all threads may read it. conf_free() frees all that came
 * from it: fields, texts, lists and the plugins' filled memory.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/errors.h"
#include "roda/plugin.h"

#define CONF_LINE_BYTES_MAX    198 /* of the file, without its line end: what inih takes */
#define CONF_SECTION_BYTES_MAX 49  /* between the brackets: likewise */
#define CONF_UNIX_PATH_MAX     107 /* sun_path without its NUL */

#define CONF_FILES_MAX 256u /* with what core.include names */

enum { CONF_TCP, CONF_UDP, CONF_UNIX };      /* conf_listener.transport */
enum { CONF_SLOW_DISCONNECT };               /* conf_limits.on_slow_reader */
enum { CONF_FORMAT_TEXT, CONF_FORMAT_JSON }; /* conf_messages.format */
enum { CONF_OUTPUT_STDERR };                 /* conf_messages.output */

struct conf_core {
    const char *name;       /* of this broker, as others see it */
    int64_t workers;        /* 0: auto */
    const char *user;       /* "": stay who started it */
    const char *state_dir;  /* absolute */
    const char *plugin_dir; /* absolute, or "" if no default was given to conf_load() */
    int64_t shutdown_grace_ms;
    struct roda_list include; /* as written */
};

struct conf_messages {
    int64_t output; /* CONF_OUTPUT_* */
    int64_t format; /* CONF_FORMAT_* */
    int64_t level;  /* index: 0 error, 1 warning ... 4 debug; RODA_LOG_ERROR + level */
    int mask_addresses;
};

struct conf_amount {
    int64_t bytes;   /* if percent is 0 */
    int64_t percent; /* of RAM, or of the cgroup's memory.max if that is less */
};

struct conf_limits {
    int64_t max_connections; /* conf_is_set(conf, "limits", "max_connections"): asked for */
    struct conf_amount send_queues_total;
    int64_t udp_sessions_max;
    /* A listener may override what follows: use conf_listener.limits on a connection's way. */
    int64_t line_bytes;
    int64_t receive_queue_bytes;
    int64_t send_queue_bytes;
    int64_t on_slow_reader;       /* CONF_SLOW_* */
    int64_t handshake_timeout_ms; /* 0: none; so below */
    int64_t write_timeout_ms;
    int64_t idle_ping_ms;
    int64_t ping_timeout_ms;
    int64_t max_delay_ms;
    int64_t udp_session_timeout_ms;
    struct roda_rate udp_session_bytes; /* bytes out per session; count is bytes, 0: off */
};

struct conf_address {
    int family;        /* AF_INET, AF_INET6 */
    bool only_ipv6;    /* IPV6_V6ONLY: all but a "::" that no IPv4 address stands beside */
    uint8_t bytes[16]; /* network order; the first 4 for AF_INET */
    const char *text;  /* as written */
};

struct conf_listener {
    const char *name;
    int64_t transport;                    /* CONF_TCP ... */
    const struct conf_address *addresses; /* tcp, udp */
    size_t n_addresses;
    int64_t port;     /* tcp, udp; 0: any free one */
    const char *path; /* unix: absolute */
    int64_t mode;     /* unix: of the socket */
    const char *protocol;
    struct roda_list layers;   /* empty for now */
    struct conf_limits limits; /* those of [limits], with what this listener overrides */
    struct conf_place place;   /* of its section */
    struct roda_list address;  /* as written */
};

/* A [plugin NAME] section. */
struct conf_plugin {
    const char *name;
    const char *path; /* absolute; "": NAME.so in core.plugin_dir */
    int enabled;
    int64_t budget_ms; /* 0: no budget */
    struct conf_place place;
};

struct conf_store; /* what the files said, and the memory of everything */

struct conf {
    struct conf_core core;
    struct conf_messages messages;
    struct conf_limits limits;
    const struct conf_listener *listeners; /* in the order of the file */
    size_t n_listeners;
    const struct conf_plugin *plugins; /* in the order of the file: that of the filters */
    size_t n_plugins;
    struct conf_store *store;
};

/* What stands for an option that was left empty and depends on the machine. "" or NULL: none. */
struct conf_defaults {
    const char *state_dir;
    const char *plugin_dir;
};
/* The usual place: $STATE_DIRECTORY (systemd sets it); /var/lib/roda for root; else
 * $XDG_STATE_HOME/roda, else $HOME/.local/state/roda, else "state" (beside the configuration).
 * Always NUL-terminated; returns buf. */
const char *conf_state_dir_default(bool root, char *buf, size_t size);

/* 0: *ret_conf is a whole model, in which whatever errors tells about holds its default: go on
 * with the plugins so that all errors are found, and do not run it unless
 * conf_errors_result(errors) is 0. Negative: no model could be made (-ENOMEM, or the file cannot
 * be read, which errors tells). */
int conf_load(const char *path, const struct conf_defaults *defaults,
              struct roda_conf_errors *errors, struct conf **ret_conf);
/* The same from memory, where name stands for the path in messages and for relative paths, and
 * includes are not read; for tests and fuzzing. */
int conf_load_text(const char *name, const char *text, size_t len,
                   const struct conf_defaults *defaults, struct roda_conf_errors *errors,
                   struct conf **ret_conf);
void conf_free(struct conf *conf); /* NULL is a no-op */

/* Fills conf_size bytes of the plugin's conf from its option table (stride bytes an entry; NULL:
 * none). The plugin needs no section. The table must live until conf_free(). 0 with *ret_conf
 * (NULL if conf_size is 0) also if values are wrong: errors tells, defaults stand for them.
 * -ENOMEM; -EINVAL: the table itself is wrong (errors tells); -EEXIST: filled already. */
int conf_plugin_fill(struct conf *conf, const char *plugin, const struct roda_option *table,
                     size_t stride, size_t conf_size, struct roda_conf_errors *errors,
                     const void **ret_conf);
/* The plugin's conf for that listener: what conf_plugin_fill() gave where the listener overrides
 * nothing, else a copy with the overridden fields. -ENOENT: not filled yet. */
int conf_listener_fill(struct conf *conf, const char *listener, const char *plugin,
                       struct roda_conf_errors *errors, const void **ret_conf);
/* Once all plugins are filled: unknown keys, overrides of plugins that are not loaded, overrides
 * of what a listener may not override; with the nearest valid name. */
void conf_check_leftovers(struct conf *conf, struct roda_conf_errors *errors);

/* section is "limits", "listener NAME" ... What a file says about the key itself, not what it
 * inherits. Lists: the first place. */
bool conf_is_set(const struct conf *conf, const char *section, const char *key);
/* The key's place, else the section's, else (no such section) the file as a whole. */
struct conf_place conf_place(const struct conf *conf, const char *section, const char *key);
/* An error at that place with the value as written, for what only later layers find: a protocol
 * nobody offers, an address in use. key NULL: the section. Returns -EINVAL. */
int conf_error_at(struct roda_conf_errors *errors, const struct conf *conf, const char *section,
                  const char *key, const char *fmt, ...) RODA_PRINTF(5, 6);
/* The same, with "; did you mean ...?" if one of names is near enough to the value. */
int conf_error_near(struct roda_conf_errors *errors, const struct conf *conf, const char *section,
                    const char *key, const char *const *names, size_t n_names, const char *fmt, ...)
    RODA_PRINTF(7, 8);

#endif
