/* From text to a typed configuration: defaults, values, every error, plugins and overrides. */
#include "expect.h"

#include <arpa/inet.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "conf/option.h"
#include "conf/sections.h"

/* ---- defaults and values ---------------------------------------------------------------- */

static void test_defaults(void **state)
{
    struct conf *conf = expect_good(GOOD);
    const struct conf_listener *listener = &conf->listeners[0];

    (void)state;
    assert_string_equal(conf->core.name, "roda.local");
    assert_int_equal(conf->core.workers, 0);
    assert_string_equal(conf->core.user, "");
    assert_string_equal(conf->core.state_dir, "/var/lib/roda");
    assert_string_equal(conf->core.plugin_dir, "/usr/lib/roda");
    assert_int_equal(conf->core.shutdown_grace_ms, 30000);
    assert_int_equal(conf->core.include.n, 0);
    assert_int_equal(conf->messages.output, CONF_OUTPUT_STDERR);
    assert_int_equal(conf->messages.format, CONF_FORMAT_TEXT);
    assert_int_equal(RODA_LOG_ERROR + conf->messages.level, RODA_LOG_INFO);
    assert_false(conf->messages.mask_addresses);
    assert_int_equal(conf->limits.max_connections, 10000);
    assert_int_equal(conf->limits.send_queues_total.percent, 25);
    assert_int_equal(conf->limits.send_queues_total.bytes, 0);
    assert_int_equal(conf->limits.udp_sessions_max, 4096);
    assert_int_equal(conf->limits.line_bytes, 4096);
    assert_int_equal(conf->limits.receive_queue_bytes, 8192);
    assert_int_equal(conf->limits.send_queue_bytes, 262144);
    assert_int_equal(conf->limits.on_slow_reader, CONF_SLOW_DISCONNECT);
    assert_int_equal(conf->limits.handshake_timeout_ms, 15000);
    assert_int_equal(conf->limits.write_timeout_ms, 10000);
    assert_int_equal(conf->limits.idle_ping_ms, 90000);
    assert_int_equal(conf->limits.ping_timeout_ms, 30000);
    assert_int_equal(conf->limits.max_delay_ms, 10000);
    assert_int_equal(conf->limits.udp_session_timeout_ms, 75000);
    assert_int_equal(conf->limits.udp_session_bytes.count, 65536);
    assert_int_equal(conf->limits.udp_session_bytes.per_ms, 1000);
    assert_int_equal(conf->limits.udp_session_bytes.burst, 131072);
    assert_int_equal(conf->n_plugins, 0);
    assert_int_equal(conf->n_listeners, 1);
    assert_string_equal(listener->name, "x");
    assert_int_equal(listener->transport, CONF_TCP);
    assert_int_equal(listener->n_addresses, 2);
    assert_int_equal(listener->addresses[0].family, AF_INET);
    assert_memory_equal(listener->addresses[0].bytes, "\x7f\0\0\x01", 4);
    assert_int_equal(listener->addresses[1].family, AF_INET6);
    assert_true(listener->addresses[1].only_ipv6);
    assert_string_equal(listener->addresses[1].text, "::1");
    assert_int_equal(listener->layers.n, 0);
    assert_memory_equal(&listener->limits, &conf->limits, sizeof(conf->limits));
    conf_free(conf);
}

static void test_values(void **state)
{
    struct conf *conf = expect_good("[core]\nname = chat.example\nworkers = 256\nuser = roda\n"
                                    "state_dir = /s\nplugin_dir = /p\nshutdown_grace = 5m\n"
                                    "[messages]\nformat = json\nlevel = debug\n"
                                    "mask_addresses = yes\n"
                                    "[limits]\nmax_connections = 5\nsend_queues_total = 64M\n"
                                    "line_bytes = 64k\nreceive_queue = 64k\nidle_ping = 0\n"
                                    "udp_session_rate = off\n"
                                    "[listener y]\ntransport = unix\npath = a/b.sock\n"
                                    "mode = 0600\nprotocol = q\nsend_queue = 1M\n"
                                    "[listener z]\ntransport = udp\nport = 65535\nprotocol = q\n"
                                    "address = ::\n"
                                    "[plugin second]\nenabled = no\n"
                                    "[plugin first]\npath = /x/first.so\nbudget = 2s\n");

    (void)state;
    assert_string_equal(conf->core.name, "chat.example");
    assert_int_equal(conf->core.workers, 256);
    assert_string_equal(conf->core.user, "roda");
    assert_string_equal(conf->core.state_dir, "/s");
    assert_string_equal(conf->core.plugin_dir, "/p");
    assert_int_equal(conf->core.shutdown_grace_ms, 300000);
    assert_int_equal(conf->messages.format, CONF_FORMAT_JSON);
    assert_int_equal(RODA_LOG_ERROR + conf->messages.level, RODA_LOG_DEBUG);
    assert_true(conf->messages.mask_addresses);
    assert_int_equal(conf->limits.max_connections, 5);
    assert_int_equal(conf->limits.send_queues_total.bytes, 64 << 20);
    assert_int_equal(conf->limits.send_queues_total.percent, 0);
    assert_int_equal(conf->limits.idle_ping_ms, 0);
    assert_int_equal(conf->limits.udp_session_bytes.count, 0);
    assert_int_equal(conf->n_listeners, 2);
    assert_int_equal(conf->listeners[0].transport, CONF_UNIX);
    assert_string_equal(conf->listeners[0].path, "/s/a/b.sock");
    assert_int_equal(conf->listeners[0].mode, 0600);
    assert_int_equal(conf->listeners[0].n_addresses, 0);
    assert_int_equal(conf->listeners[0].limits.send_queue_bytes, 1 << 20);
    assert_int_equal(conf->listeners[0].limits.line_bytes, 65536);
    assert_int_equal(conf->limits.send_queue_bytes, 262144);
    assert_int_equal(conf->listeners[1].transport, CONF_UDP);
    assert_int_equal(conf->listeners[1].port, 65535);
    assert_false(conf->listeners[1].addresses[0].only_ipv6);
    assert_string_equal(conf->plugins[0].name, "second");
    assert_false(conf->plugins[0].enabled);
    assert_int_equal(conf->plugins[0].budget_ms, 1);
    assert_string_equal(conf->plugins[1].name, "first");
    assert_true(conf->plugins[1].enabled);
    assert_string_equal(conf->plugins[1].path, "/x/first.so");
    assert_int_equal(conf->plugins[1].budget_ms, 2000);
    conf_free(conf);
}

static void test_relative_paths(void **state)
{
    static const char *const paths[][2] = {{"chat.sock", "/s/chat.sock"},
                                           {"./chat.sock", "/s/chat.sock"},
                                           {".//././/chat.sock", "/s/chat.sock"},
                                           {"../chat.sock", "/s/../chat.sock"},
                                           {"/chat.sock", "/chat.sock"}};

    (void)state;
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        char text[256];
        struct conf *conf;
        (void)snprintf(text, sizeof(text),
                       "[core]\nstate_dir = /s\n[listener a]\ntransport = unix\npath = %s\n"
                       "protocol = line\n",
                       paths[i][0]);
        conf = expect_good(text);
        assert_string_equal(conf->listeners[0].path, paths[i][1]);
        conf_free(conf);
    }
}

static void test_places(void **state)
{
    struct conf *conf = expect_good(GOOD "[limits]\n\nmax_connections = 7\n");
    struct conf_place place = conf_place(conf, "limits", "max_connections");

    (void)state;
    assert_string_equal(place.file, "t");
    assert_int_equal(place.line, 6);
    assert_true(conf_is_set(conf, "limits", "max_connections"));
    assert_false(conf_is_set(conf, "limits", "line_bytes"));
    assert_int_equal(conf_place(conf, "limits", "line_bytes").line, 4);
    assert_int_equal(conf_place(conf, "listener x", "port").line, 2);
    assert_true(conf_is_set(conf, "listener x", "protocol"));
    assert_false(conf_is_set(conf, "listener x", "address"));
    assert_int_equal(conf_place(conf, "core", "name").line, 0);
    assert_string_equal(conf_place(conf, "core", "name").file, "t");
    conf_free(conf);
}

static void test_error_at(void **state)
{
    static const char *const names[] = {"line", "json"};
    struct conf *conf = expect_good("[listener x]\nport = 0\nprotocol = jsn\n");
    struct roda_conf_errors *errors = conf_errors_new();

    (void)state;
    assert_int_equal(conf_error_near(errors, conf, "listener x", "protocol", names, 2,
                                     "no loaded plugin offers it"),
                     -EINVAL);
    assert_int_equal(conf_error_near(errors, conf, "listener x", "protocol", names, 1, "no"),
                     -EINVAL);
    assert_int_equal(conf_error_at(errors, conf, "listener x", NULL, "in use by %d", 7), -EINVAL);
    assert_int_equal(conf_error_at(errors, conf, "core", "user", "no such user"), -EINVAL);
    expect_lines(errors, "t: [core].user: no such user\n"
                         "t:1: [listener x]: in use by 7\n"
                         "t:3: [listener x].protocol: jsn: no loaded plugin offers it; did you "
                         "mean \"json\"?\n"
                         "t:3: [listener x].protocol: jsn: no\n");
    conf_errors_free(errors);
    conf_free(conf);
}

/* ---- errors ----------------------------------------------------------------------------- */

struct expectation {
    const char *text, *messages; /* text comes behind GOOD, whose three lines count */
};

static const struct expectation wrong_values[] = {
    /* the four of the manual */
    {"[limits]\nmax_conections = 5\n",
     "t:5: [limits].max_conections: unknown key; did you mean \"max_connections\"?\n"},
    {"[listener irc]\nport = 70000\nprotocol = p\n",
     "t:5: [listener irc].port: 70000: at most 65535\n"},
    {"[limits]\nidle_ping = 90\n",
     "t:5: [limits].idle_ping: 90: the unit is missing; did you mean \"90s\"?\n"},
    {"[limits]\nidle_ping = 90 s\n",
     "t:5: [limits].idle_ping: 90 s: not a duration, as 250ms, 30s, 5m, 12h or 7d\n"},
    {"[limits]\nidle_ping = -1s\n",
     "t:5: [limits].idle_ping: -1s: not a duration, as 250ms, 30s, 5m, 12h or 7d\n"},
    {"[limits]\nidle_ping = 2d\n", "t:5: [limits].idle_ping: 2d: at most 1d\n"},
    {"[limits]\nidle_ping =\n",
     "t:5: [limits].idle_ping: the value is missing; the default is \"90s\"\n"},
    {"[limits]\nmax_delay = 10ms\n", "t:5: [limits].max_delay: 10ms: at least 100ms\n"},
    {"[limits]\nsend_queue = 1x\n",
     "t:5: [limits].send_queue: 1x: not a size, as 512, 64k or 1M\n"},
    {"[limits]\nline_bytes = 511\n", "t:5: [limits].line_bytes: 511: at least 512\n"},
    {"[limits]\nline_bytes = 65537\n", "t:5: [limits].line_bytes: 65537: at most 64k\n"},
    {"[limits]\nline_bytes = 99999999999999999999\n",
     "t:5: [limits].line_bytes: 99999999999999999999: at most 64k\n"},
    {"[limits]\nmax_connections = 0\n", "t:5: [limits].max_connections: 0: at least 1\n"},
    {"[limits]\nmax_connections = ten\n", "t:5: [limits].max_connections: ten: not a number\n"},
    {"[limits]\nmax_connections = -99999999999999999999\n",
     "t:5: [limits].max_connections: -99999999999999999999: at least 1\n"},
    {"[limits]\nsend_queues_total = 0%\n",
     "t:5: [limits].send_queues_total: 0%: a share is 1% to 90%\n"},
    {"[limits]\nsend_queues_total = 91%\n",
     "t:5: [limits].send_queues_total: 91%: a share is 1% to 90%\n"},
    {"[limits]\nsend_queues_total = x%\n",
     "t:5: [limits].send_queues_total: x%: a share is 1% to 90%\n"},
    {"[limits]\nsend_queues_total = lots\n",
     "t:5: [limits].send_queues_total: lots: neither a size, as 512M, nor a share, as 25%\n"},
    {"[limits]\nsend_queues_total = 1k\n", "t:5: [limits].send_queues_total: 1k: at least 1M\n"},
    {"[limits]\non_slow_reader = disconect\n",
     "t:5: [limits].on_slow_reader: disconect: not disconnect; did you mean \"disconnect\"?\n"},
    {"[limits]\nudp_session_rate = 64k\n",
     "t:5: [limits].udp_session_rate: 64k: the period is missing; write it as 2/s, 30/m or 2/s "
     "burst 10\n"},
    {"[limits]\nudp_session_rate = fast\n",
     "t:5: [limits].udp_session_rate: fast: not a rate, as 2/s, 30/m, 2/s burst 10 or off\n"},
    {"[limits]\nline_bytes = 64k\n",
     "t:5: [limits].line_bytes: 64k: receive_queue (8k) must hold a line of line_bytes (64k)\n"},
    {"[limits]\nreceive_queue = 2k\n",
     "t:5: [limits].receive_queue: 2k: receive_queue (2k) must hold a line of line_bytes (4k)\n"},
    {"[core]\nworkers = 257\n", "t:5: [core].workers: 257: at most 256\n"},
    {"[core]\nworkers = 0\n", "t:5: [core].workers: 0: at least 1\n"},
    {"[core]\nworkers = many\n", "t:5: [core].workers: many: neither a number nor auto\n"},
    {"[core]\nname = a b\n",
     "t:5: [core].name: a b: a name like a host's: letters, digits, \".\", \"-\" and \"_\"\n"},
    {"[core]\nname =\n", "t:5: [core].name: at least 1 byte\n"},
    {"[core]\nmax_connections = 5\n",
     "t:5: [core].max_connections: unknown key here; it belongs in [limits]\n"},
    {"[core]\ninclude = a,,b\n",
     "t:5: [core].include: a,,b: nothing between two commas, or a comma too many\n"},
    {"[core]\ninclude = a,\n",
     "t:5: [core].include: a,: nothing between two commas, or a comma too many\n"},
    {"[messages]\nlevel = warn\n",
     "t:5: [messages].level: warn: not error, warning, notice, info or debug\n"},
    {"[messages]\nlevel = warnin\n",
     "t:5: [messages].level: warnin: not error, warning, notice, info or debug; did you mean "
     "\"warning\"?\n"},
    {"[messages]\nlevel = INFO\n",
     "t:5: [messages].level: INFO: not error, warning, notice, info or debug; did you mean "
     "\"info\"?\n"},
    {"[messages]\nmask_addresses = true\n",
     "t:5: [messages].mask_addresses: true: neither yes nor no; did you mean \"yes\"?\n"},
    {"[messages]\nmask_addresses = Off\n",
     "t:5: [messages].mask_addresses: Off: neither yes nor no; did you mean \"no\"?\n"},
    {"[messages]\nmask_addresses = maybe\n",
     "t:5: [messages].mask_addresses: maybe: neither yes nor no\n"},
    /* the same key twice */
    {"[core]\nname = a\nuser = u\nname = b\n",
     "t:7: [core].name: b: given twice; the first is t:5\n"},
    {"[core]\nname = a\n[core]\nname = a\n",
     "t:7: [core].name: a: given twice; the first is t:5\n"},
    {"[core]\nname = a\nname = b\nname = c\n",
     "t:6: [core].name: b: given twice; the first is t:5\n"
     "t:7: [core].name: c: given twice; the first is t:5\n"},
    /* sections */
    {"[limit]\n", "t:4: [limit]: unknown section; did you mean \"limits\"?\n"},
    {"[Core]\n", "t:4: [Core]: unknown section; did you mean \"core\"?\n"},
    {"[listner web]\nport = 1\n",
     "t:4: [listner web]: unknown section; did you mean \"listener web\"?\n"},
    {"[ratelimit]\nx = 1\n",
     "t:4: [ratelimit]: unknown section; there are [core], [messages], [limits], [listener NAME] "
     "and [plugin NAME]\n"},
    {"[plugin]\n", "t:4: [plugin]: the name is missing; write [plugin NAME]\n"},
    {"[listener]\nport = 1\n", "t:4: [listener]: the name is missing; write [listener NAME]\n"},
    {"[core x]\n", "t:4: [core x]: has no name; write [core]\n"},
    {"[plugin a.b]\n", "t:4: [plugin a.b]: a name is made of letters, digits, \"-\" and \"_\"\n"},
    {"[plugin ../x]\n", "t:4: [plugin ../x]: a name is made of letters, digits, \"-\" and \"_\"\n"},
    /* plugins */
    {"[plugin p]\nenabled = 1\n",
     "t:5: [plugin p].enabled: 1: neither yes nor no; did you mean \"yes\"?\n"},
    {"[plugin p]\nbudget = 1\n",
     "t:5: [plugin p].budget: 1: the unit is missing; did you mean \"1s\"?\n"},
    /* listeners */
    {"[listener y]\n", "t:4: [listener y].port: missing; give it, as in \"port = 3000\"\n"
                       "t:4: [listener y].protocol: missing; give it, as in \"protocol = NAME\"\n"},
    {"[listener y]\ntransport = udp\nprotocol = p\n",
     "t:4: [listener y].port: missing; give it, as in \"port = 3000\"\n"},
    {"[listener y]\ntransport = unix\nprotocol = p\n",
     "t:4: [listener y].path: missing; give it, as in \"path = chat.sock\"\n"},
    {"[listener y]\ntransport = unix\nprotocol = p\npath = s\nport = 1\naddress = ::\n",
     "t:8: [listener y].port: 1: only for transport = tcp and udp\n"
     "t:9: [listener y].address: ::: only for transport = tcp and udp\n"},
    {"[listener y]\nprotocol = p\nport = 1\npath = s\nmode = 0600\n",
     "t:7: [listener y].path: s: only for transport = unix\n"
     "t:8: [listener y].mode: 0600: only for transport = unix\n"},
    {"[listener y]\ntransport = unx\nprotocol = p\npath = s\n",
     "t:5: [listener y].transport: unx: not tcp, udp or unix; did you mean \"unix\"?\n"},
    {"[listener y]\ntransport = unix\nprotocol = p\npath = s\nmode = 0888\n",
     "t:8: [listener y].mode: 0888: not octal permission bits, as 0660\n"},
    {"[listener y]\ntransport = unix\nprotocol = p\npath = s\nmode = 1777\n",
     "t:8: [listener y].mode: 1777: at most 0777\n"},
    {"[listener y]\nport = 1\nprotocol =\n", "t:6: [listener y].protocol: at least 1 byte\n"},
    {"[listener y]\nport = -1\nprotocol = p\n", "t:5: [listener y].port: -1: at least 0\n"},
    {"[listener y]\nport = 1\nprotocol = p\nlayers = websocket\n",
     "t:7: [listener y].layers: websocket: no loaded plugin offers it\n"},
    {"[listener y]\nport = 1\nprotocol = p\nadress = ::\n",
     "t:7: [listener y].adress: unknown key; did you mean \"address\"?\n"},
    {"[listener y]\nport = 1\nprotocol = p\nsend_qeue = 1M\n",
     "t:7: [listener y].send_qeue: unknown key; did you mean \"send_queue\"?\n"},
    /* a limit that is the broker's alone */
    {"[listener y]\nport = 1\nprotocol = p\nmax_connections = 1\n",
     "t:7: [listener y].max_connections: unknown key here; it belongs in [limits]\n"},
    {"[listener y]\nport = 1\nprotocol = p\nsend_queue = 1\n",
     "t:7: [listener y].send_queue: 1: at least 4k\n"},
    {"[listener y]\nport = 1\nprotocol = p\nline_bytes = 32k\n",
     "t:7: [listener y].line_bytes: 32k: receive_queue (8k) must hold a line of line_bytes "
     "(32k)\n"},
    /* addresses */
    {"[listener y]\nport = 1\nprotocol = p\naddress =\n",
     "t:7: [listener y].address: at least 1 item\n"},
    {"[listener y]\nport = 1\nprotocol = p\naddress = localhost\n",
     "t:7: [listener y].address: localhost: not an IP address; write 127.0.0.1, ::1\n"},
    {"[listener y]\nport = 1\nprotocol = p\naddress = *\n",
     "t:7: [listener y].address: *: not an IP address; did you mean \"::\"?\n"},
    {"[listener y]\nport = 1\nprotocol = p\naddress = [::1]\n",
     "t:7: [listener y].address: [::1]: not an IP address; write it without the brackets\n"},
    {"[listener y]\nport = 1\nprotocol = p\naddress = 127.0.0.1:80\n",
     "t:7: [listener y].address: 127.0.0.1:80: not an IP address; the port has a key of its own\n"},
    {"[listener y]\nport = 1\nprotocol = p\naddress = 1.2.3\n",
     "t:7: [listener y].address: 1.2.3: not an IP address, as 127.0.0.1, ::1 or ::\n"},
    {"[listener y]\nport = 1\nprotocol = p\naddress = ::ffff:1.2.3.4\n",
     "t:7: [listener y].address: ::ffff:1.2.3.4: an IPv4 address in IPv6 form; write the IPv4 "
     "address\n"},
    {"[listener y]\nport = 1\nprotocol = p\naddress = ::1, x\naddress = y, ::2\naddress = z\n",
     "t:7: [listener y].address: x: not an IP address, as 127.0.0.1, ::1 or ::\n"
     "t:8: [listener y].address: y: not an IP address, as 127.0.0.1, ::1 or ::\n"
     "t:9: [listener y].address: z: not an IP address, as 127.0.0.1, ::1 or ::\n"},
};

static void expect_after_good(const char *text, const char *messages)
{
    char whole[4096];
    int len = snprintf(whole, sizeof(whole), "%s%s", GOOD, text);

    assert_true(len > 0 && (size_t)len < sizeof(whole));
    expect_load(whole, messages);
}

static void test_wrong_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(wrong_values) / sizeof(wrong_values[0]); i++)
        expect_after_good(wrong_values[i].text, wrong_values[i].messages);
}

/* All errors of a file at once, in the order of the lines. */
static void test_all_errors(void **state)
{
    (void)state;
    expect_load("[limits]\nidle_ping = 90\n[core]\nworkers = x\nnovalue\n[listener y]\nport = y\n",
                "t:2: [limits].idle_ping: 90: the unit is missing; did you mean \"90s\"?\n"
                "t:4: [core].workers: x: neither a number nor auto\n"
                "t:5: no \"=\" in the line; write key = value\n"
                "t:6: [listener y].protocol: missing; give it, as in \"protocol = NAME\"\n"
                "t:7: [listener y].port: y: not a number\n");
}

/* Every option of every section: an unknown key beside it, and a wrong value of its type, are
 * told; and its default, written out, is right. */
static const char *wrong_text(uint32_t type)
{
    return type == RODA_T_STRING || type == RODA_T_PATH ? NULL : type == RODA_T_LIST ? "," : "?";
}

static void expect_one_error(const char *text, const char *part)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = NULL;
    char *messages;

    assert_int_equal(conf_load_text("t", text, strlen(text), &expect_defaults, errors, &conf), 0);
    conf_check_leftovers(conf, errors);
    messages = expect_messages(errors);
    if (conf_errors_count(errors, CONF_ERROR) != 1 || !strstr(messages, part))
        fail_msg("%s\ngives\n%s", text, messages);
    free(messages);
    conf_free(conf);
    conf_errors_free(errors);
}

static void try_option(const struct sections_entry *section, const struct roda_option *option)
{
    char text[1024], part[256];
    const char *wrong = wrong_text(option->type);
    bool is_listener = strcmp(section->kind, "listener") == 0;
    bool of_unix = strcmp(option->name, "path") == 0 || strcmp(option->name, "mode") == 0;
    bool skip_rest = is_listener && strcmp(option->name, "transport") != 0 && of_unix;

    if (!wrong)
        return;
    (void)snprintf(text, sizeof(text), "%s[%s%s]\n%s%s%s%s = %s\n", GOOD, section->kind,
                   section->named ? " n" : "", skip_rest ? "transport = unix\npath = s\n" : "",
                   is_listener && !skip_rest && strcmp(option->name, "port") != 0 ? "port = 1\n"
                                                                                  : "",
                   is_listener ? "protocol = p\n" : "", option->name, wrong);
    (void)snprintf(part, sizeof(part), "].%s: %s: ", option->name, wrong);
    expect_one_error(text, part);
}

static void test_each_option(void **state)
{
    (void)state;
    for (size_t i = 0; i < SECTIONS_N; i++) {
        const struct roda_option *option = sections[i].options;
        char text[256], part[64];

        (void)snprintf(text, sizeof(text), "[%s%s]\nqqqqqqqqqq = 1\n%s", sections[i].kind,
                       sections[i].named ? " x" : "",
                       i == SECTIONS_LISTENER ? "port = 1\nprotocol = p\n" : GOOD);
        (void)snprintf(part, sizeof(part), "].qqqqqqqqqq: unknown key\n");
        if (i != SECTIONS_PLUGIN) /* where the plugin's table decides: test_leftovers */
            expect_one_error(text, part);
        for (; option->name; option++)
            try_option(&sections[i], option);
    }
}

static void test_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < SECTIONS_N; i++) {
        for (const struct roda_option *o = sections[i].options; o->name; o++) {
            assert_non_null(o->help);
            assert_true(strlen(o->name) + strlen(o->help) > 0);
            assert_int_not_equal(option_field_bytes(o->type), 0);
            assert_ptr_equal(option_find(sections[i].options, sizeof(*o), o->name), o);
            assert_null(strchr(o->help, '\n'));
            assert_int_not_equal(o->help[strlen(o->help) - 1], '.');
        }
    }
}

/* ---- places taken ----------------------------------------------------------------------- */

#define A "[listener a]\nport = 1\nprotocol = p\naddress = "
#define B "\n[listener b]\nport = 1\nprotocol = p\naddress = "

static const struct expectation places[] = {
    {A "127.0.0.1" B "127.0.0.1\n",
     "t:8: [listener b].address: 127.0.0.1: taken by [listener a] at t:1\n"},
    {A "127.0.0.1" B "127.0.0.2\n", ""},
    {A "0.0.0.0" B "127.0.0.1\n",
     "t:8: [listener b].address: 127.0.0.1: \"0.0.0.0\" of [listener a] at t:1 covers the same "
     "address and port\n"},
    {A "127.0.0.1" B "0.0.0.0\n",
     "t:8: [listener b].address: 0.0.0.0: \"127.0.0.1\" of [listener a] at t:1 covers the same "
     "address and port\n"},
    {A "::" B "0.0.0.0\n",
     "t:8: [listener b].address: 0.0.0.0: \"::\" of [listener a] at t:1 covers the same address "
     "and port\n"},
    {A "::" B "127.0.0.1\n",
     "t:8: [listener b].address: 127.0.0.1: \"::\" of [listener a] at t:1 covers the same address "
     "and port\n"},
    {A "0.0.0.0" B "::\n",
     "t:8: [listener b].address: ::: \"0.0.0.0\" of [listener a] at t:1 covers the same address "
     "and port\n"},
    {A "::" B "::1\n",
     "t:8: [listener b].address: ::1: \"::\" of [listener a] at t:1 covers the same address and "
     "port\n"},
    {A "::1" B "0.0.0.0\n", ""},
    {A "::, 0.0.0.0\n", ""}, /* "::" is IPv6 only beside an IPv4 address */
    {A "0.0.0.0, ::\n", ""},
    {A "::, 10.0.0.1" B "10.0.0.2\n", ""},
    {A "::1, ::1\n", "t:4: [listener a].address: ::1: given twice\n"},
    {A "::1, 0:0:0:0:0:0:0:1\n",
     "t:4: [listener a].address: 0:0:0:0:0:0:0:1: \"::1\" of [listener a] at t:1 covers the same "
     "address and port\n"},
    {A "::1\naddress = 127.0.0.1\naddress = ::1\n",
     "t:6: [listener a].address: ::1: given twice\n"},
    {"[listener a]\nport = 0\nprotocol = p\n[listener b]\nport = 0\nprotocol = p\n", ""},
    {"[listener a]\nport = 1\nprotocol = p\n[listener b]\nport = 2\nprotocol = p\n", ""},
    {"[listener a]\nport = 1\nprotocol = p\n[listener b]\nport = 1\nprotocol = p\n"
     "transport = udp\n",
     ""},
    {"[listener a]\ntransport = unix\npath = s\nprotocol = p\n"
     "[listener b]\ntransport = unix\npath = /var/lib/roda/s\nprotocol = p\n",
     "t:7: [listener b].path: /var/lib/roda/s: taken by [listener a] at t:1\n"},
    {"[listener a]\ntransport = unix\npath = s\nprotocol = p\n"
     "[listener b]\ntransport = unix\npath = s2\nprotocol = p\n",
     ""},
};

static void test_places_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        expect_load(places[i].text, places[i].messages);
}

static void test_long_socket_path(void **state)
{
    char text[512], expected[512], path[CONF_UNIX_PATH_MAX + 2];
    struct conf *conf;

    (void)state;
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[CONF_UNIX_PATH_MAX + 1] = '\0';
    (void)snprintf(text, sizeof(text), "[listener a]\ntransport = unix\nprotocol = p\npath = %s\n",
                   path);
    (void)snprintf(expected, sizeof(expected),
                   "t:4: [listener a].path: %s: longer than 107 bytes, which no socket can be\n",
                   path);
    expect_load(text, expected);
    path[CONF_UNIX_PATH_MAX] = '\0';
    (void)snprintf(text, sizeof(text), "[listener a]\ntransport = unix\nprotocol = p\npath = %s\n",
                   path);
    conf = expect_good(text);
    assert_string_equal(conf->listeners[0].path, path);
    conf_free(conf);
}

static void test_no_listener(void **state)
{
    (void)state;
    expect_load("[core]\n", "t: no [listener NAME] section, so nobody could connect\n");
}

/* ---- the state directory ---------------------------------------------------------------- */

static void expect_state_dir(const char *service, const char *xdg, const char *home, bool root,
                             const char *expected)
{
    char buf[PATH_MAX];

    if (service)
        (void)setenv("STATE_DIRECTORY", service, 1);
    else
        (void)unsetenv("STATE_DIRECTORY");
    if (xdg)
        (void)setenv("XDG_STATE_HOME", xdg, 1);
    else
        (void)unsetenv("XDG_STATE_HOME");
    if (home)
        (void)setenv("HOME", home, 1);
    else
        (void)unsetenv("HOME");
    assert_string_equal(conf_state_dir_default(root, buf, sizeof(buf)), expected);
}

static void test_state_dir_default(void **state)
{
    (void)state;
    expect_state_dir(NULL, NULL, "/h", true, "/var/lib/roda");
    expect_state_dir(NULL, NULL, "/h", false, "/h/.local/state/roda");
    expect_state_dir(NULL, "/x", "/h", false, "/x/roda");
    expect_state_dir(NULL, "relative", "/h", false, "/h/.local/state/roda");
    expect_state_dir("/var/lib/chat:/b", "/x", "/h", false, "/var/lib/chat");
    expect_state_dir("/var/lib/chat", NULL, NULL, true, "/var/lib/chat");
    expect_state_dir(NULL, NULL, NULL, false, "state");
}

static void test_relative_directories(void **state)
{
    struct conf_defaults defaults = {"state", NULL};
    struct roda_conf_errors *errors = conf_errors_new();
    const char *text = GOOD "[core]\nplugin_dir = ./plugins\n[plugin p]\npath = p.so\n";
    struct conf *conf = NULL;

    (void)state;
    assert_int_equal(conf_load_text("/etc/roda/roda.conf", text, strlen(text), &defaults, errors,
                                    &conf),
                     0);
    expect_lines(errors, "");
    assert_string_equal(conf->core.state_dir, "/etc/roda/state");
    assert_string_equal(conf->core.plugin_dir, "/etc/roda/plugins");
    assert_string_equal(conf->plugins[0].path, "/etc/roda/p.so");
    conf_free(conf);
    conf_errors_free(errors);
}

/* ---- include ---------------------------------------------------------------------------- */

struct folder {
    char path[64];
};

static void put(const struct folder *folder, const char *name, const char *text)
{
    char path[256];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static int folder_setup(void **state)
{
    struct folder *folder = calloc(1, sizeof(*folder));

    if (!folder)
        return -1;
    (void)snprintf(folder->path, sizeof(folder->path), "/tmp/roda-test-conf-XXXXXX");
    *state = folder;
    return mkdtemp(folder->path) && chdir(folder->path) == 0 && mkdir("d", 0700) == 0 ? 0 : -1;
}

static int folder_teardown(void **state)
{
    static const char *const names[] = {"main", "one", "d/a.conf", "d/b.conf", "d/c.conf", "d"};
    struct folder *folder = *state;
    int result = chdir(folder->path);

    for (size_t i = 0; result == 0 && i < sizeof(names) / sizeof(names[0]); i++)
        (void)remove(names[i]);
    result |= chdir("/");
    (void)rmdir(folder->path);
    free(folder);
    return result;
}

static struct conf *load_main(struct roda_conf_errors *errors)
{
    struct conf *conf = NULL;

    assert_int_equal(conf_load("main", &expect_defaults, errors, &conf), 0);
    return conf;
}

static void test_include(void **state)
{
    const struct folder *folder = *state;
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf;

    put(folder, "main", "[core]\ninclude = d/*.conf, one\n[plugin m]\n" GOOD);
    put(folder, "d/b.conf", "[plugin b]\n[listener x]\naddress = ::2\n");
    put(folder, "d/a.conf", "[plugin a]\n[listener x]\naddress = ::1\n");
    put(folder, "one", "[core]\nname = included\n");
    conf = load_main(errors);
    expect_lines(errors, "");
    assert_string_equal(conf->core.name, "included");
    assert_int_equal(conf->n_plugins, 3);
    assert_string_equal(conf->plugins[0].name, "m");
    assert_string_equal(conf->plugins[1].name, "a"); /* in the order of names */
    assert_string_equal(conf->plugins[2].name, "b");
    assert_int_equal(conf->listeners[0].n_addresses, 2); /* lists grow over files */
    assert_string_equal(conf->listeners[0].addresses[0].text, "::1");
    assert_string_equal(conf_place(conf, "core", "name").file, "one");
    conf_free(conf);
    conf_errors_free(errors);
}

static void test_include_errors(void **state)
{
    const struct folder *folder = *state;
    struct roda_conf_errors *errors = conf_errors_new();

    put(folder, "main",
        "[core]\nname = first\ninclude = d/a.conf, missing, none/*.conf, d, d/*.conf\n" GOOD);
    put(folder, "d/a.conf", "[core]\nname = second\ninclude = x\nbad\n");
    put(folder, "d/b.conf", "[core]\nusr = x\n");
    conf_free(load_main(errors));
    expect_lines(errors,
                 "main:3: [core].include: missing: no such file (looked for missing)\n"
                 "d/a.conf:2: [core].name: second: given twice; the first is main:2\n"
                 "d/a.conf:3: [core].include: x: an included file cannot include others; name them "
                 "in main\n"
                 "d/a.conf:4: no \"=\" in the line; write key = value\n"
                 "d: is a directory; name the file in it\n"
                 "d/b.conf:2: [core].usr: unknown key; did you mean \"user\"?\n");
    conf_errors_free(errors);
}

/* A file that includes itself, and a file named twice, are read once. */
static void test_include_once(void **state)
{
    const struct folder *folder = *state;
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf;

    put(folder, "main", "[core]\ninclude = mai*\ninclude = d/b.conf, d/b.conf\n" GOOD);
    put(folder, "d/b.conf", "[core]\nname = b\n");
    conf = load_main(errors);
    expect_lines(errors, "");
    assert_string_equal(conf->core.name, "b");
    conf_free(conf);
    conf_errors_free(errors);
}

/* ---- plugins ---------------------------------------------------------------------------- */

struct sample {
    int64_t number, wait_ms, size_bytes, mode, word;
    int flag;
    const char *text, *path;
    struct roda_list list;
    struct roda_rate rate;
};

#define SAMPLE(f) offsetof(struct sample, f)

static const struct roda_option sample_options[] = {
    {"number", RODA_T_INT, SAMPLE(number), "5", 1, 10, NULL, RODA_OPTION_LISTENER, "a number"},
    {"wait", RODA_T_MS, SAMPLE(wait_ms), "1s", 0, 0, NULL, 0, "a duration"},
    {"size", RODA_T_BYTES, SAMPLE(size_bytes), "4k", 0, 0, NULL, RODA_OPTION_LISTENER, "a size"},
    {"mode", RODA_T_MODE, SAMPLE(mode), "0640", 0, 0, NULL, 0, "a mode"},
    {"word", RODA_T_CHOICE, SAMPLE(word), "two", 0, 0, "one|two|three", 0, "a word"},
    {"flag", RODA_T_BOOL, SAMPLE(flag), "yes", 0, 0, NULL, RODA_OPTION_LISTENER, "a flag"},
    {"text", RODA_T_STRING, SAMPLE(text), "hello", 0, 8, NULL, RODA_OPTION_LISTENER, "a text"},
    {"path_of_log", RODA_T_PATH, SAMPLE(path), "log", 0, 0, NULL, 0, "a path"},
    {"list", RODA_T_LIST, SAMPLE(list), "a, b", 0, 3, NULL, RODA_OPTION_LISTENER, "a list"},
    {"rate", RODA_T_RATE, SAMPLE(rate), "2/s burst 10", 0, 0, NULL, 0, "a rate"},
    {NULL, 0, 0, NULL, 0, 0, NULL, 0, NULL},
};

static const struct sample *fill_sample(struct conf *conf, const char *name,
                                        struct roda_conf_errors *errors)
{
    const void *filled = NULL;

    assert_int_equal(conf_plugin_fill(conf, name, sample_options, sizeof(sample_options[0]),
                                      sizeof(struct sample), errors, &filled),
                     0);
    assert_non_null(filled);
    return filled;
}

static struct conf *load_any(const char *text, struct roda_conf_errors *errors)
{
    struct conf *conf = NULL;

    assert_int_equal(conf_load_text("t", text, strlen(text), &expect_defaults, errors, &conf), 0);
    return conf;
}

static void test_plugin_defaults(void **state)
{
    struct conf *conf = expect_good(GOOD);
    struct roda_conf_errors *errors = conf_errors_new();
    const struct sample *sample = fill_sample(conf, "s", errors);
    const void *again = NULL;

    (void)state;
    assert_int_equal(sample->number, 5);
    assert_int_equal(sample->wait_ms, 1000);
    assert_int_equal(sample->size_bytes, 4096);
    assert_int_equal(sample->mode, 0640);
    assert_int_equal(sample->word, 1);
    assert_int_equal(sample->flag, 1);
    assert_string_equal(sample->text, "hello");
    assert_string_equal(sample->path, "/var/lib/roda/log");
    assert_int_equal(sample->list.n, 2);
    assert_string_equal(sample->list.items[1].ptr, "b");
    assert_int_equal(sample->list.items[1].len, 1);
    assert_int_equal(sample->rate.burst, 10);
    assert_int_equal(conf_plugin_fill(conf, "s", sample_options, sizeof(sample_options[0]),
                                      sizeof(*sample), errors, &again),
                     -EEXIST);
    assert_int_equal(conf_listener_fill(conf, "x", "s", errors, &again), 0);
    assert_ptr_equal(again, sample); /* nothing overridden: the same memory */
    assert_int_equal(conf_listener_fill(conf, "x", "other", errors, &again), -ENOENT);
    conf_check_leftovers(conf, errors);
    expect_lines(errors, "");
    conf_errors_free(errors);
    conf_free(conf);
}

static void test_plugin_values(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = load_any(GOOD "s.number = 7\ns.list = q\ns.text =\n"
                                      "[plugin s]\nnumber = 3\nlist = x, y\nlist = z\ntext = hi\n"
                                      "word = three\npath_of_log = /l\nbudget = 2ms\n",
                                 errors);
    const struct sample *sample = fill_sample(conf, "s", errors), *own;
    const void *filled = NULL;

    (void)state;
    assert_int_equal(sample->number, 3);
    assert_int_equal(sample->word, 2);
    assert_string_equal(sample->path, "/l");
    assert_int_equal(sample->list.n, 3);
    assert_string_equal(sample->list.items[2].ptr, "z");
    assert_int_equal(conf_listener_fill(conf, "x", "s", errors, &filled), 0);
    own = filled;
    assert_ptr_not_equal(own, sample);
    assert_int_equal(own->number, 7);
    assert_int_equal(own->list.n, 1); /* a listener's list takes the place of the plugin's */
    assert_string_equal(own->list.items[0].ptr, "q");
    assert_string_equal(own->text, "");
    assert_int_equal(own->word, 2); /* the rest is the plugin's */
    assert_int_equal(conf_listener_fill(conf, "x", "s", errors, &filled), 0);
    assert_ptr_equal(filled, own);
    conf_check_leftovers(conf, errors);
    expect_lines(errors, "");
    conf_errors_free(errors);
    conf_free(conf);
}

static void test_plugin_errors(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = load_any(GOOD "s.number = 70\ns.number = 8\n"
                                      "[plugin s]\nnumber = 0\nwait = 5\nword = tow\n"
                                      "text = too long a text\nlist = 1, 2\nlist = 3, 4\n"
                                      "mode = 9\nflag = 1\nrate = x\nsize = 1T\nwait = 1s\n",
                                 errors);
    const struct sample *sample = fill_sample(conf, "s", errors);

    (void)state;
    assert_int_equal(sample->number, 5); /* the default stands for what is wrong */
    conf_check_leftovers(conf, errors);
    expect_lines(errors, "t:4: [listener x].s.number: 70: at most 10\n"
                         "t:5: [listener x].s.number: 8: given twice; the first is t:4\n"
                         "t:7: [plugin s].number: 0: at least 1\n"
                         "t:8: [plugin s].wait: 5: the unit is missing; did you mean \"5s\"?\n"
                         "t:9: [plugin s].word: tow: not one, two or three; did you mean \"two\"?\n"
                         "t:10: [plugin s].text: too long a text: at most 8 bytes\n"
                         "t:11: [plugin s].list: 1, 2: at most 3 items\n"
                         "t:13: [plugin s].mode: 9: not octal permission bits, as 0660\n"
                         "t:14: [plugin s].flag: 1: neither yes nor no; did you mean \"yes\"?\n"
                         "t:15: [plugin s].rate: x: not a rate, as 2/s, 30/m, 2/s burst 10 or off\n"
                         "t:16: [plugin s].size: 1T: not a size, as 512, 64k or 1M\n"
                         "t:17: [plugin s].wait: 1s: given twice; the first is t:8\n");
    conf_errors_free(errors);
    conf_free(conf);
}

static void test_plugin_must_be_given(void **state)
{
    static const struct roda_option options[] = {
        {"key", RODA_T_STRING, 0, NULL, 0, 0, NULL, 0, "a secret"},
        {NULL, 0, 0, NULL, 0, 0, NULL, 0, NULL},
    };
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = load_any(GOOD "[plugin a]\n[plugin b]\nkey = x\n", errors);
    const void *filled = NULL;

    (void)state;
    assert_int_equal(conf_plugin_fill(conf, "a", options, sizeof(options[0]), sizeof(char *),
                                      errors, &filled),
                     0);
    assert_int_equal(conf_plugin_fill(conf, "b", options, sizeof(options[0]), sizeof(char *),
                                      errors, &filled),
                     0);
    assert_string_equal(*(const char *const *)filled, "x");
    expect_lines(errors, "t:4: [plugin a].key: missing; it must be given (a secret)\n");
    conf_errors_free(errors);
    conf_free(conf);
}

/* A table may be newer than this core: its entries are longer. */
static void test_plugin_stride(void **state)
{
    struct {
        struct roda_option option;
        uint64_t later;
    } table[] = {{sample_options[0], 1}, {sample_options[1], 2}, {{.name = NULL}, 0}};
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = load_any(GOOD "[plugin s]\nwait = 7s\n", errors);
    const void *filled = NULL;
    const struct sample *sample;

    (void)state;
    assert_int_equal(conf_plugin_fill(conf, "s", &table[0].option, sizeof(table[0]),
                                      sizeof(*sample), errors, &filled),
                     0);
    sample = filled;
    assert_int_equal(sample->wait_ms, 7000);
    conf_check_leftovers(conf, errors);
    expect_lines(errors, "");
    conf_errors_free(errors);
    conf_free(conf);
}

static void test_plugin_without_options(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = load_any(GOOD "p.x = 1\n[plugin p]\nenable = yes\n", errors);
    const void *filled = conf;

    (void)state;
    assert_int_equal(conf_plugin_fill(conf, "p", NULL, sizeof(struct roda_option), 0, errors,
                                      &filled),
                     0);
    assert_null(filled);
    assert_int_equal(conf_listener_fill(conf, "x", "p", errors, &filled), 0);
    assert_null(filled);
    conf_check_leftovers(conf, errors);
    expect_lines(errors, "t:4: [listener x].p.x: unknown key of the plugin \"p\"\n"
                         "t:6: [plugin p].enable: unknown key; did you mean \"enabled\"?\n");
    conf_errors_free(errors);
    conf_free(conf);
}

static void test_leftovers(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = load_any("[listener x]\nport = 0\nprotocol = p\n"
                                 "sample.numbr = 1\n"  /* no such option */
                                 "sample.wait = 2s\n"  /* not for listeners */
                                 "sampel.number = 1\n" /* no such plugin */
                                 "log.x = 1\n"         /* no plugin like it */
                                 "off.x = 1\n"         /* switched off: not looked at */
                                 "failed.x = 1\n"      /* not loaded: told by who tried */
                                 "sample.flag = 2\n"   /* right, but the value is not */
                                 "[plugin sample]\nnumbr = 1\nenabeld = yes\nqqqqqq = 1\n"
                                 "[plugin off]\nenabled = no\nx = 1\n"
                                 "[plugin failed]\ny = 1\n",
                                 errors);

    (void)state;
    expect_lines(errors, "");
    fill_sample(conf, "sample", errors);
    conf_check_leftovers(conf, errors);
    expect_lines(
        errors,
        "t:4: [listener x].sample.numbr: unknown key; did you mean \"sample.number\"?\n"
        "t:5: [listener x].sample.wait: a listener cannot have its own value of it; set it in "
        "[plugin sample]\n"
        "t:6: [listener x].sampel.number: no plugin \"sampel\" is loaded; did you mean "
        "\"sample.number\"?\n"
        "t:7: [listener x].log.x: no plugin \"log\" is loaded; [plugin log] would load it\n"
        "t:10: [listener x].sample.flag: 2: neither yes nor no\n"
        "t:12: [plugin sample].numbr: unknown key; did you mean \"number\"?\n"
        "t:13: [plugin sample].enabeld: unknown key; did you mean \"enabled\"?\n"
        "t:14: [plugin sample].qqqqqq: unknown key\n");
    conf_errors_free(errors);
    conf_free(conf);
}

/* Tables that are wrong are refused before a byte is written. */
static const struct {
    struct roda_option option;
    const char *message;
} defects[] = {
    {{"a", 99, 0, "1", 0, 0, NULL, 0, "h"}, "\"a\" of a type that this roda does not know"},
    {{"a", 0x1000, 0, "1", 0, 0, NULL, 0, "h"}, "\"a\" of a type that this roda does not know"},
    {{"a", RODA_T_INT, 1, "1", 0, 0, NULL, 0, "h"}, "\"a\" outside of its conf_size"},
    {{"a", RODA_T_INT, UINT32_MAX, "1", 0, 0, NULL, 0, "h"}, "\"a\" outside of its conf_size"},
    {{"path", RODA_T_INT, 0, "1", 0, 0, NULL, 0, "h"}, "\"path\" a key that every plugin has"},
    {{"a", RODA_T_CHOICE, 0, "1", 0, 0, NULL, 0, "h"}, "\"a\" without choices"},
    {{"a.b", RODA_T_INT, 0, "1", 0, 0, NULL, 0, "h"}, "\"a.b\" without a usable name or help"},
    {{"a", RODA_T_INT, 0, "1", 0, 0, NULL, 0, NULL}, "\"a\" without a usable name or help"},
};

static void test_plugin_defects(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(defects) / sizeof(defects[0]); i++) {
        struct roda_option table[2] = {defects[i].option, {.name = NULL}};
        struct roda_conf_errors *errors = conf_errors_new();
        struct conf *conf = load_any(GOOD "[plugin p]\n", errors);
        const void *filled = NULL;
        char expected[256];

        assert_int_equal(conf_plugin_fill(conf, "p", table, sizeof(table[0]), sizeof(int64_t),
                                          errors, &filled),
                         -EINVAL);
        (void)snprintf(expected, sizeof(expected),
                       "t:4: [plugin p]: the plugin declares an option %s; tell its author\n",
                       defects[i].message);
        expect_lines(errors, expected);
        conf_errors_free(errors);
        conf_free(conf);
    }
}

static void test_plugin_wrong_default(void **state)
{
    const struct roda_option table[] = {
        {"a", RODA_T_MS, 0, "30", 0, 0, NULL, 0, "h"},
        {.name = NULL},
    };
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = load_any(GOOD "[plugin p]\n", errors);
    const void *filled = NULL;

    (void)state;
    assert_int_equal(conf_plugin_fill(conf, "p", table, sizeof(table[0]), sizeof(int64_t), errors,
                                      &filled),
                     -EINVAL);
    expect_lines(errors, "t:4: [plugin p].a: 30: the default that the plugin declares is wrong: "
                         "the unit is missing; did you mean \"30s\"?; tell its author\n");
    conf_errors_free(errors);
    conf_free(conf);
}

/* What a plugin's check() says finds its line. */
static void test_plugin_check(void **state)
{
    struct roda_conf_errors *errors = conf_errors_new();
    struct conf *conf = load_any(GOOD "s.number = 7\n[plugin s]\nnumber = 3\n", errors);

    (void)state;
    fill_sample(conf, "s", errors);
    conf_errors_context(errors, conf, "s", NULL);
    assert_int_equal(roda_conf_error(errors, "number", "too %s", "odd"), -EINVAL);
    assert_int_equal(roda_conf_error(errors, "wait", "too short"), -EINVAL);
    assert_int_equal(roda_conf_error(errors, NULL, "all wrong"), -EINVAL);
    conf_errors_context(errors, conf, "s", "x");
    (void)roda_conf_error(errors, "number", "not here");
    (void)roda_conf_error(errors, "wait", "too long");
    conf_errors_context(errors, conf, "unnamed", NULL);
    (void)roda_conf_error(errors, "key", "missing");
    conf_errors_context(errors, NULL, NULL, NULL);
    (void)roda_conf_error(errors, "key", "lost");
    expect_lines(errors, "t: [plugin unnamed].key: missing\n"
                         "key: lost\n"
                         "t:4: [listener x].s.number: 7: not here\n"
                         "t:5: [plugin s].wait: too short\n"
                         "t:5: [plugin s]: all wrong\n"
                         "t:5: [plugin s].wait: too long\n"
                         "t:6: [plugin s].number: 3: too odd\n");
    conf_errors_free(errors);
    conf_free(conf);
}

/* ---- memory ----------------------------------------------------------------------------- */

/* Whether loading, filling and checking went through with every allocation from the n-th on
 * failing. */
static bool load_without_memory(const char *text, size_t len, uint64_t n)
{
    struct roda_conf_errors *errors;
    struct conf *conf = NULL;
    const void *filled;
    bool whole = false;

    memory_fail_at(n, 1);
    errors = conf_errors_new();
    if (errors && conf_load_text("t", text, len, &expect_defaults, errors, &conf) == 0 &&
        conf_plugin_fill(conf, "s", sample_options, sizeof(sample_options[0]),
                         sizeof(struct sample), errors, &filled) == 0 &&
        conf_listener_fill(conf, "l0", "s", errors, &filled) == 0) {
        conf_check_leftovers(conf, errors);
        whole = conf_errors_result(errors) != -ENOMEM;
    }
    memory_fail_at(0, 0);
    conf_free(conf);
    conf_errors_free(errors);
    return whole;
}

static void test_memory(void **state)
{
    char *text = calloc(1, EXPECT_TEXT_BYTES);
    size_t len = 0;
    uint64_t n = 1;

    (void)state;
    assert_non_null(text);
    for (int i = 0; i < 200; i++)
        len += (size_t)snprintf(text + len, EXPECT_TEXT_BYTES - len,
                                "[listener l%d]\nport = %d\nprotocol = p\naddress = 10.0.0.1, "
                                "10.0.0.2\ns.number = 7\nsend_queue = 1M\n",
                                i, i + 1);
    len += (size_t)snprintf(text + len, EXPECT_TEXT_BYTES - len,
                            "[plugin s]\nlist = a, b\ntext = t\n[limits]\nmax_connections = 7\n");
    while (!load_without_memory(text, len, n))
        n++;
    assert_true(n > 5); /* the failures were many, and ended */
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_relative_paths),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_error_at),
        cmocka_unit_test(test_wrong_values),
        cmocka_unit_test(test_all_errors),
        cmocka_unit_test(test_each_option),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_places_taken),
        cmocka_unit_test(test_long_socket_path),
        cmocka_unit_test(test_no_listener),
        cmocka_unit_test(test_state_dir_default),
        cmocka_unit_test(test_relative_directories),
        cmocka_unit_test(test_include),
        cmocka_unit_test(test_include_errors),
        cmocka_unit_test(test_include_once),
        cmocka_unit_test(test_plugin_defaults),
        cmocka_unit_test(test_plugin_values),
        cmocka_unit_test(test_plugin_errors),
        cmocka_unit_test(test_plugin_must_be_given),
        cmocka_unit_test(test_plugin_stride),
        cmocka_unit_test(test_plugin_without_options),
        cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_plugin_defects),
        cmocka_unit_test(test_plugin_wrong_default),
        cmocka_unit_test(test_plugin_check),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, folder_setup, folder_teardown);
}
