/*
 * Model: each listener is filled from its section: its own options, and a copy of [limits] in
 * which it may override those that allow it. Then what one table cannot say is checked: what each
 * transport needs and what it does not have, and that no two listeners want the same place.
 *
 * Two places are the same if the kernel would refuse the second: same transport and port (port 0
 * never collides), and equal addresses, or one of them is the wildcard of that family. "::" takes
 * IPv4 too unless an IPv4 address stands beside it in the same listener (then IPV6_V6ONLY is set).
 */
#include "conf/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/number.h"
#include "conf/fill.h"
#include "conf/option.h"
#include "conf/sections.h"

#define STRIDE sizeof(struct roda_option)

static const struct roda_option *listener_table(void)
{
    return sections[SECTIONS_LISTENER].options;
}

static const struct roda_option *limits_table(void)
{
    return sections[SECTIONS_LIMITS].options;
}

/* ---- addresses -------------------------------------------------------------------------- */

/* Where the i-th item of a list key stands. */
static struct conf_place item_place(const struct store_section *section, const char *key, size_t i)
{
    struct store_entry *entry = store_entry_find(section, key);

    for (; entry; entry = store_entry_next(entry)) {
        size_t n = 1;

        for (const char *comma = entry->value; (comma = strchr(comma, ',')); comma++)
            n++;
        if (i < n)
            return entry->place;
        i -= n;
    }
    return section->place;
}

static const char *address_reason(const char *text)
{
    if (strcmp(text, "*") == 0)
        return "not an IP address; did you mean \"::\"?";
    if (strcmp(text, "localhost") == 0)
        return "not an IP address; write 127.0.0.1, ::1";
    if (text[0] == '[')
        return "not an IP address; write it without the brackets";
    if (strchr(text, '.') && strchr(text, ':'))
        return "not an IP address; the port has a key of its own";
    return "not an IP address, as 127.0.0.1, ::1 or ::";
}

static int address_read(const char *text, struct conf_address *address)
{
    address->text = text;
    address->family = strchr(text, ':') ? AF_INET6 : AF_INET;
    address->only_ipv6 = address->family == AF_INET6;
    return inet_pton(address->family, text, address->bytes) == 1 ? 0 : -EINVAL;
}

static bool address_is_wildcard(const struct conf_address *address)
{
    static const uint8_t zero[16];

    return memcmp(address->bytes, zero, sizeof(zero)) == 0;
}

static bool address_is_mapped(const struct conf_address *address)
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

    return address->family == AF_INET6 && memcmp(address->bytes, prefix, sizeof(prefix)) == 0;
}

static bool has_ipv4(const struct conf_listener *listener)
{
    for (size_t i = 0; i < listener->n_addresses; i++) {
        if (listener->addresses[i].family == AF_INET)
            return true;
    }
    return false;
}

static int read_addresses(struct conf *conf, const struct store_section *section,
                          struct conf_listener *listener, struct roda_conf_errors *errors)
{
    struct conf_address *addresses =
        store_alloc(conf->store, (listener->address.n + 1) * sizeof(*addresses));
    size_t n = 0;

    if (!addresses)
        return -ENOMEM;
    for (size_t i = 0; i < listener->address.n; i++) {
        struct conf_address address = {.family = 0};
        const char *text = listener->address.items[i].ptr;
        const char *reason = NULL;

        if (address_read(text, &address) < 0)
            reason = address_reason(text);
        else if (address_is_mapped(&address))
            reason = "an IPv4 address in IPv6 form; write the IPv4 address";
        if (reason)
            conf_errors_add(errors, CONF_ERROR, item_place(section, "address", i), section->name,
                            "address", text, "%s", reason);
        else
            addresses[n++] = address;
    }
    listener->addresses = addresses;
    listener->n_addresses = n;
    for (size_t i = 0; i < n; i++) {
        if (addresses[i].only_ipv6 && address_is_wildcard(&addresses[i]) && !has_ipv4(listener))
            addresses[i].only_ipv6 = false;
    }
    return 0;
}

static bool addresses_collide(const struct conf_address *a, const struct conf_address *b)
{
    if (a->family == b->family)
        return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0 || address_is_wildcard(a) ||
               address_is_wildcard(b);
    /* Only "::" reaches into the other family. */
    return (a->family == AF_INET6 && !a->only_ipv6) || (b->family == AF_INET6 && !b->only_ipv6);
}

/* ---- places that are taken -------------------------------------------------------------- */

static void tell_taken(struct roda_conf_errors *errors, const struct store_section *section,
                       struct conf_place place, const char *key, const char *value,
                       const struct conf_listener *other, const char *other_value)
{
    bool same_section = strcmp(section->label, other->name) == 0;

    if (same_section && strcmp(value, other_value) == 0)
        conf_errors_add(errors, CONF_ERROR, place, section->name, key, value, "given twice");
    else if (strcmp(value, other_value) == 0)
        conf_errors_add(errors, CONF_ERROR, place, section->name, key, value,
                        "taken by [listener %s] at %s:%u", other->name, other->place.file,
                        other->place.line);
    else
        conf_errors_add(errors, CONF_ERROR, place, section->name, key, value,
                        "\"%s\" of [listener %s] at %s:%u covers the same address and port",
                        other_value, other->name, other->place.file, other->place.line);
}

static void check_address(const struct store_section *section, const struct conf_listener *listener,
                          size_t i, const struct conf_listener *other, size_t n_other,
                          struct roda_conf_errors *errors)
{
    const struct conf_address *address = &listener->addresses[i];

    for (size_t j = 0; j < n_other; j++) {
        if (!addresses_collide(address, &other->addresses[j]))
            continue;
        tell_taken(errors, section, item_place(section, "address", i), "address", address->text,
                   other, other->addresses[j].text);
        return;
    }
}

/* Against an earlier listener, or itself. */
static void check_places(const struct store_section *section, const struct conf_listener *listener,
                         const struct conf_listener *other, struct roda_conf_errors *errors)
{
    bool is_self = listener == other;

    if (listener->transport != other->transport)
        return;
    if (listener->transport == CONF_UNIX) {
        struct store_entry *path = store_entry_find(section, "path");

        if (!is_self && path && listener->path[0] && strcmp(listener->path, other->path) == 0)
            tell_taken(errors, section, path->place, "path", listener->path, other, other->path);
        return;
    }
    if (listener->port != other->port || listener->port == 0)
        return;
    for (size_t i = 0; i < listener->n_addresses; i++)
        check_address(section, listener, i, other, is_self ? i : other->n_addresses, errors);
}

/* ---- one listener ----------------------------------------------------------------------- */

static void tell_missing(struct roda_conf_errors *errors, const struct store_section *section,
                         const char *key, const char *example)
{
    conf_errors_add(errors, CONF_ERROR, section->place, section->name, key, NULL,
                    "missing; give it, as in %s", example);
}

static void tell_if_given(struct roda_conf_errors *errors, const struct store_section *section,
                          const char *key, const char *transports)
{
    struct store_entry *entry = store_entry_find(section, key);

    if (entry)
        conf_errors_add(errors, CONF_ERROR, entry->place, section->name, key, entry->value,
                        "only for transport = %s", transports);
}

/* Whether the listener's transport is the one meant, not the default for a wrong word. */
static bool transport_is_sure(const struct store_section *section,
                              const struct conf_listener *listener)
{
    const struct roda_option *option = option_find(listener_table(), STRIDE, "transport");
    struct store_entry *entry = store_entry_find(section, option->name);
    const char *name = "";
    size_t len = option_choice(option->choices, (size_t)listener->transport, &name);

    return !entry || (strlen(entry->value) == len && memcmp(entry->value, name, len) == 0);
}

static void check_transport(const struct store_section *section,
                            const struct conf_listener *listener, struct roda_conf_errors *errors)
{
    if (listener->transport == CONF_UNIX) {
        tell_if_given(errors, section, "address", "tcp and udp");
        tell_if_given(errors, section, "port", "tcp and udp");
        if (!listener->path[0])
            tell_missing(errors, section, "path", "\"path = chat.sock\"");
        else if (strlen(listener->path) > CONF_UNIX_PATH_MAX)
            conf_errors_add(errors, CONF_ERROR, item_place(section, "path", 0), section->name,
                            "path", listener->path, "longer than %d bytes, which no socket can be",
                            CONF_UNIX_PATH_MAX);
        return;
    }
    tell_if_given(errors, section, "path", "unix");
    tell_if_given(errors, section, "mode", "unix");
    if (!store_entry_find(section, "port"))
        tell_missing(errors, section, "port", "\"port = 3000\"");
}

static void check_listener(const struct store_section *section,
                           const struct conf_listener *listener, struct roda_conf_errors *errors)
{
    if (transport_is_sure(section, listener))
        check_transport(section, listener, errors);
    if (!store_entry_find(section, "protocol"))
        tell_missing(errors, section, "protocol", "\"protocol = NAME\"");
    for (size_t i = 0; i < listener->layers.n; i++)
        conf_errors_add(errors, CONF_ERROR, item_place(section, "layers", i), section->name,
                        "layers", listener->layers.items[i].ptr, "no loaded plugin offers it");
}

/* Whether the listener overrides a limit that queues and lines share. */
static bool overrides_sizes(const struct store_section *section)
{
    return store_entry_find(section, "line_bytes") || store_entry_find(section, "send_queue") ||
           store_entry_find(section, "receive_queue");
}

static int fill_listener(struct conf *conf, struct store_section *section,
                         struct conf_listener *listener, struct roda_conf_errors *errors)
{
    struct fill own = {
        .store = conf->store,
        .errors = errors,
        .name = section->name,
        .section = section,
        .prefix = "",
        .table = listener_table(),
        .stride = STRIDE,
        .directory = conf->store->state_directory,
        .allow_missing = true,
        .target = listener,
    };
    struct fill limits = own;
    struct fill_names names[] = {{listener_table(), STRIDE, 0},
                                 {limits_table(), STRIDE, RODA_OPTION_LISTENER},
                                 {NULL, 0, 0}};
    int result;

    listener->name = section->label;
    listener->place = section->place;
    listener->limits = conf->limits;
    listener->protocol = "";
    limits.table = limits_table();
    limits.only_flags = RODA_OPTION_LISTENER;
    limits.no_defaults = true;
    limits.target = &listener->limits;
    result = fill_section(&own);
    if (result == 0)
        result = fill_section(&limits);
    if (result == 0 && listener->transport != CONF_UNIX)
        result = read_addresses(conf, section, listener, errors);
    if (result < 0)
        return result;
    check_listener(section, listener, errors);
    if (overrides_sizes(section))
        limits_check(conf, section->name, &listener->limits, errors);
    fill_unknown(errors, section, names, true);
    return 0;
}

static bool is_listener(const struct store_section *section)
{
    return !section->refused && strcmp(section->kind, sections[SECTIONS_LISTENER].kind) == 0;
}

static void check_queue(const struct conf *conf, const char *section, const char *key,
                        int64_t queue_bytes, int64_t line_bytes, struct roda_conf_errors *errors)
{
    char line[NUMBER_TEXT_BYTES], queue[NUMBER_TEXT_BYTES];

    if (queue_bytes >= line_bytes)
        return;
    (void)number_format_bytes(line_bytes, line, sizeof(line));
    (void)number_format_bytes(queue_bytes, queue, sizeof(queue));
    (void)conf_error_at(errors, conf, section, conf_is_set(conf, section, key) ? key : "line_bytes",
                        "%s (%s) must hold a line of line_bytes (%s)", key, queue, line);
}

void limits_check(const struct conf *conf, const char *section, const struct conf_limits *limits,
                  struct roda_conf_errors *errors)
{
    check_queue(conf, section, "receive_queue", limits->receive_queue_bytes, limits->line_bytes,
                errors);
    check_queue(conf, section, "send_queue", limits->send_queue_bytes, limits->line_bytes, errors);
}

int listeners_fill(struct conf *conf, struct roda_conf_errors *errors)
{
    struct conf_listener *listeners;
    size_t n = 0;
    int result;

    for (struct store_section *section = conf->store->sections; section; section = section->next)
        n += is_listener(section);
    listeners = store_alloc(conf->store, (n + 1) * sizeof(*listeners));
    if (!listeners)
        return -ENOMEM;
    n = 0;
    for (struct store_section *section = conf->store->sections; section; section = section->next) {
        if (!is_listener(section))
            continue;
        result = fill_listener(conf, section, &listeners[n], errors);
        if (result < 0)
            return result;
        for (size_t i = 0; i <= n; i++)
            check_places(section, &listeners[n], &listeners[i], errors);
        n++;
    }
    conf->listeners = listeners;
    conf->n_listeners = n;
    if (n == 0)
        conf_errors_add(errors, CONF_ERROR, conf->store->file, NULL, NULL, NULL,
                        "no [listener NAME] section, so nobody could connect");
    return 0;
}
