/*
 * Makes the documents that come from the option tables, so that they cannot drift apart:
 *
 *     conf2doc conf PLUGIN.so ...        conf/roda.conf, to standard output
 *     conf2doc manual PLUGIN.so ...      the reference part of roda.conf(5), in scdoc
 *
 * The plugins are those that the file starts, in the order of their sections. The core's options
 * come from its own tables, a plugin's from the descriptor that it exports; nothing of a plugin is
 * called. Only the sentences and the few values that conf/roda.conf sets stand here.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "conf/dump.h"
#include "conf/sections.h"
#include "roda/plugin.h"

#define PLUGINS_MAX 16

static void print_line(void *arg, const char *line)
{
    (void)arg;
    puts(line);
}

static struct conf_options of_listener(void)
{
    return (struct conf_options){NULL, NULL, sections[SECTIONS_LISTENER].options,
                                 sizeof(struct roda_option)};
}

static const char *const top[] = {
    "# The configuration of roda. As it stands, people on this machine can talk at",
    "# once, in one room, whichever way they come:",
    "#",
    "#     nc 127.0.0.1 3000",
    "#     nc -u 127.0.0.1 3000",
    "#     nc -U ~/.local/state/roda/chat.sock       (as root: /var/lib/roda/chat.sock)",
    "#",
    "# Lines that begin with \"# \" explain; those that begin with \"#\" and a key are",
    "# options with their default: take the \"#\" away to set one. A value ends where",
    "# \" ;\" begins a comment. Durations are written 250ms, 30s, 5m, 12h, 7d; sizes",
    "# 512, 64k, 1M; rates 2/s burst 10. A list has commas between its items, or its",
    "# key again in another line. \"roda --check\" tells everything that is wrong with",
    "# this file, \"roda --dump\" shows what is in effect, and roda.conf(5) has more.",
    "",
    "# ---- doors for clients ---------------------------------------------------------",
    "",
};

/* What conf/roda.conf sets. */
static const char *const tcp_keys[] = {"transport", "address", "port", "protocol", "layers", NULL};
static const char *const tcp_set[] = {"port", "3000", "protocol", "line", NULL};
static const char *const udp_set[] = {"transport", "udp", "port", "3000", "protocol", "line", NULL};
static const char *const unix_keys[] = {"transport", "path", "mode", "protocol", NULL};
static const char *const local_set[] = {"transport", "unix", "path", "chat.sock",
                                        "protocol",  "line", NULL};
static const char *const stats_set[] = {"transport", "unix",     "path",  "stats.sock", "mode",
                                        "0600",      "protocol", "stats", NULL};

static const struct conf_example listeners[] = {
    {"listener tcp", "People with nc or telnet.", tcp_keys, tcp_set, false},
    {"listener udp", "The same room by datagrams.", NULL, udp_set, true},
    {"listener local", "And by a UNIX socket, which needs no network.", unix_keys, local_set,
     false},
    {"listener stats", "Numbers about the broker, for its owner: echo | nc -NU stats.sock", NULL,
     stats_set, true},
};

static void print_rule(const char *title)
{
    char rule[81];
    int len = snprintf(rule, sizeof(rule), "# ---- %s ", title);

    printf("%s", rule);
    for (; len < 82; len++)
        (void)putchar('-');
    printf("\n\n");
}

static void print_listeners(void)
{
    const struct conf_options options = of_listener();

    conf_write_comment(sections[SECTIONS_LISTENER].about, print_line, NULL);
    puts("");
    for (size_t i = 0; i < sizeof(listeners) / sizeof(listeners[0]); i++) {
        conf_write_example(&listeners[i], &options, print_line, NULL);
        if (i + 1 < sizeof(listeners) / sizeof(listeners[0]))
            puts("");
    }
    /* The last one is for programs. */
    puts("# Whoever may open it may ask as often as he likes.\nratelimit.messages = off\n");
}

static void print_plugin(const struct conf_options *plugin, bool is_first)
{
    const struct conf_options generic = {NULL, NULL, sections[SECTIONS_PLUGIN].options,
                                         sizeof(struct roda_option)};
    struct conf_example example = {NULL, NULL, NULL, NULL, false};
    char header[128];

    (void)snprintf(header, sizeof(header), "plugin %s", plugin->name);
    example.header = header;
    example.about = plugin->summary;
    conf_write_example(&example, plugin, print_line, NULL);
    if (is_first) {
        example.header = NULL;
        example.about = "The next options are those of every plugin.";
        conf_write_example(&example, &generic, print_line, NULL);
    }
    puts("");
}

static void print_conf(const struct conf_options *plugins, size_t n)
{
    for (size_t i = 0; i < sizeof(top) / sizeof(top[0]); i++)
        puts(top[i]);
    print_listeners();
    print_rule("what they can do here");
    for (size_t i = 0; i < n; i++)
        print_plugin(&plugins[i], i == 0);
    print_rule("the broker");
    for (size_t i = SECTIONS_CORE; i < SECTIONS_N; i++) {
        const struct conf_options options = {NULL, NULL, sections[i].options,
                                             sizeof(struct roda_option)};
        const struct conf_example example = {sections[i].kind, sections[i].about, NULL, NULL,
                                             false};

        conf_write_example(&example, &options, print_line, NULL);
        if (i + 1 < SECTIONS_N)
            puts("");
    }
}

static int load(const char *path, struct conf_options *ret_options)
{
    void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    const struct roda_plugin *plugin = library ? dlsym(library, "roda_plugin_entry") : NULL;

    if (!plugin) {
        (void)fprintf(stderr, "conf2doc: %s\n", dlerror());
        return -1;
    }
    *ret_options =
        (struct conf_options){plugin->name, plugin->summary, plugin->options, plugin->option_size};
    return 0; /* the library stays: its tables are in use */
}

int main(int argc, char **argv)
{
    struct conf_options plugins[PLUGINS_MAX];
    size_t n = 0;

    if (argc < 2 || argc - 2 > PLUGINS_MAX ||
        (strcmp(argv[1], "conf") != 0 && strcmp(argv[1], "manual") != 0)) {
        (void)fprintf(stderr, "usage: conf2doc conf|manual PLUGIN.so ...\n");
        return 2;
    }
    for (int i = 2; i < argc; i++) {
        if (load(argv[i], &plugins[n++]) < 0)
            return 1;
    }
    if (strcmp(argv[1], "conf") == 0)
        print_conf(plugins, n);
    else
        conf_write_reference(plugins, n, print_line, NULL);
    return fflush(stdout) == 0 ? 0 : 1;
}
