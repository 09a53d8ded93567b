#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "conf/conf.h"
#include "conf/dump.h"
#include "main/blame.h"
#include "main/broker.h"
#include "main/messages.h"
#include "main/notify.h"
#include "main/privileges.h"
#include "plugin/host.h"
#include "ring/preflight.h"

/*
 * The program: options, then configuration, then the broker's life in the order that security and
 * the kernel ask for: bind (ports below 1024), drop privileges, rings, threads.
 *
 * The main thread then only waits for signals, which no other thread takes.
 */

enum { EXIT_USAGE = 2 };

enum action { ACTION_RUN, ACTION_CHECK, ACTION_DUMP };

struct options {
    const char *file;
    const char *plugin_dir;
    const char *plugin_help;
    enum action action;
    bool version;
};

static void usage(FILE *to)
{
    fputs("usage: roda [-c FILE] [--check | --dump]\n"
          "       roda --plugin-help NAME | --version | --help\n"
          "\n"
          "  -c, --conf FILE      the configuration (" RODA_CONF_FILE ")\n"
          "  -t, --check          check configuration, plugins and machine; open nothing\n"
          "  -T, --dump           check, and print every option in effect with its place\n"
          "      --plugin-help NAME   what a plugin does and its options\n"
          "      --plugin-dir DIR look for plugins there instead of core.plugin_dir's default\n"
          "  -V, --version        version, plugin ABI, kernel features found\n"
          "  -h, --help           this text\n"
          "\n"
          "See roda(8), roda.conf(5).\n",
          to);
}

static int parse_options(int argc, char **argv, struct options *o)
{
    enum { OPTION_PLUGIN_HELP = 256, OPTION_PLUGIN_DIR };
    static const struct option known[] = {
        {"conf", required_argument, NULL, 'c'},
        {"check", no_argument, NULL, 't'},
        {"dump", no_argument, NULL, 'T'},
        {"plugin-help", required_argument, NULL, OPTION_PLUGIN_HELP},
        {"plugin-dir", required_argument, NULL, OPTION_PLUGIN_DIR},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "c:tTVh", known, NULL)) >= 0) {
        switch (c) {
        case 'c':
            o->file = optarg;
            break;
        case 't':
            o->action = ACTION_CHECK;
            break;
        case 'T':
            o->action = ACTION_DUMP;
            break;
        case OPTION_PLUGIN_HELP:
            o->plugin_help = optarg;
            break;
        case OPTION_PLUGIN_DIR:
            o->plugin_dir = optarg;
            break;
        case 'V':
            o->version = true;
            break;
        case 'h':
            usage(stdout);
            exit(EXIT_SUCCESS);
        default:
            usage(stderr);
            return -EINVAL;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "roda: unexpected argument \"%s\"\n", argv[optind]);
        usage(stderr);
        return -EINVAL;
    }
    return 0;
}

static void print_line(void *to, const char *line)
{
    fprintf(to, "%s\n", line);
}

static void print_error(void *to, enum conf_severity severity, const char *line)
{
    fprintf(to, "%s%s\n", severity == CONF_WARNING ? "warning: " : "", line);
}

/* ---- plugin-help, --version ------------------------------------------------------------- */

static int plugin_help(const struct options *o)
{
    struct loaded loaded;
    char problem[512];
    int r = plugin_load(o->plugin_help, "", o->plugin_dir, &loaded, problem, sizeof problem);

    if (r) {
        fprintf(stderr, "roda: %s: %s\n", o->plugin_help, problem);
        return EXIT_FAILURE;
    }
    conf_help_plugin(&(struct conf_options){.name = loaded.plugin.name,
                                            .summary = loaded.plugin.summary,
                                            .table = loaded.plugin.options,
                                            .stride = loaded.plugin.option_size},
                     print_line, stdout);
    plugin_unload(&loaded);
    return EXIT_SUCCESS;
}

static int version(void)
{
    struct preflight preflight = {.workers = 1, .sq_entries = 64, .cq_entries = 256, .buffers = 64};
    char problem[512];

    printf("roda %s\nplugin ABI %u.%u\n", RODA_VERSION, RODA_ABI_MAJOR, RODA_ABI_MINOR);
    if (preflight_run(&preflight, problem, sizeof problem) < 0)
        printf("io_uring: %s\n", problem);
    else
        printf("kernel %s, io_uring usable: %s\n", preflight.kernel, preflight.features);
    return EXIT_SUCCESS;
}

/* ---- the broker's life ------------------------------------------------------------------ */

struct run {
    struct options options;
    struct conf *conf;
    struct roda_conf_errors *errors;
    struct host *host;
    struct broker *broker;
    pthread_t main_thread;
};

/* Prints what was found; the number of errors decides. */
static int tell_errors(struct run *run)
{
    conf_errors_each(run->errors, print_error, stderr);
    return conf_errors_result(run->errors);
}

static int load(struct run *run)
{
    char state_dir[4096];
    struct conf_defaults defaults = {
        .state_dir = conf_state_dir_default(geteuid() == 0, state_dir, sizeof state_dir),
        .plugin_dir = run->options.plugin_dir,
    };
    int r;

    run->errors = conf_errors_new();
    if (!run->errors)
        return -ENOMEM;
    r = conf_load(run->options.file, &defaults, run->errors, &run->conf);
    if (r) {
        (void)tell_errors(run);
        return r;
    }
    if (run->conf->core.user[0] && !privileges_user_exists(run->conf->core.user))
        (void)conf_error_at(run->errors, run->conf, "core", "user",
                            "there is no such user; make it (useradd --system), or leave it out");
    r = host_load(run->conf, run->errors, &run->host);
    if (!r)
        conf_check_leftovers(run->conf, run->errors);
    return r;
}

static struct preflight preflight_of(const struct broker *broker)
{
    return (struct preflight){.workers = broker->n_workers,
                              .sq_entries = broker->sq_entries,
                              .cq_entries = broker->cq_entries,
                              .buffers = broker->limits.receive_buffers};
}

static int fit(struct run *run)
{
    char problem[512] = "";
    uint64_t descriptors;
    int r;

    (void)preflight_raise_descriptors(&descriptors);
    r = broker_new(system_real(), run->conf, run->host, run->errors, &run->broker, problem,
                   sizeof problem);
    if (!r) {
        run->host = NULL; /* the broker's now */
        return 0;
    }
    if (tell_errors(run) == 0)
        fprintf(stderr, "roda: %s\n", problem[0] ? problem : strerror(-r));
    return r;
}

static int check_machine(struct run *run)
{
    struct preflight preflight = preflight_of(run->broker);
    char problem[512];
    int r = preflight_run(&preflight, problem, sizeof problem);

    if (r < 0)
        fprintf(stderr, "roda: %s\n", problem);
    return r;
}

static void changed(void *arg)
{
    struct run *run = arg;

    (void)pthread_kill(run->main_thread, SIGCHLD); /* ends the wait; SIGCHLD is nothing else here */
}

static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGUSR2);
    sigaddset(set, SIGCHLD);
    (void)pthread_sigmask(SIG_BLOCK, set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
}

static int start(struct run *run)
{
    const struct conf *conf = run->conf;
    char problem[512] = "";
    int r =
        privileges_make_directory(conf->core.state_dir, conf->core.user, problem, sizeof problem);

    if (r < 0) {
        fprintf(stderr, "roda: state_dir: %s\n", problem);
        return r;
    }
    r = broker_bind(run->broker, run->errors);
    if (r < 0) {
        (void)tell_errors(run);
        return r;
    }
    r = privileges_drop(conf->core.user, problem, sizeof problem);
    if (!r)
        r = check_machine(run);
    if (!r)
        r = broker_make_workers(run->broker, problem, sizeof problem);
    if (!r)
        r = system_pool_start(2);
    if (!r)
        r = broker_run(run->broker, problem, sizeof problem);
    if (r && problem[0])
        fprintf(stderr, "roda: %s\n", problem);
    return r;
}

/* A worker is dead, the others wait for it: what can still be done is to leave no socket behind. */
static void give_up(struct run *run)
{
    struct broker *broker = run->broker;

    log_write(RODA_LOG_ERROR, "main", "%s", broker->problem);
    for (size_t i = 0; i < broker->n_addresses; i++)
        listener_unbind(broker->system, &broker->addresses[i], broker->n_workers);
    _exit(EXIT_FAILURE);
}

static int wait_for_end(struct run *run, const sigset_t *signals)
{
    struct broker *broker = run->broker;
    bool told_ready = false;
    unsigned stops = 0;
    int number = 0;

    while (!broker_ended(broker)) {
        if (__atomic_load_n((bool *)&broker->broken, __ATOMIC_ACQUIRE))
            give_up(run);
        if (!told_ready && broker_running(broker)) {
            told_ready = true;
            notify("READY=1");
            log_write(RODA_LOG_NOTICE, "main", "%s is ready: %u worker%s, at most %u connections",
                      run->conf->core.name, broker->n_workers, broker->n_workers == 1 ? "" : "s",
                      broker->limits.max_connections);
        }
        if (sigwait(signals, &number))
            continue;
        switch (number) {
        case SIGINT:
        case SIGTERM:
            if (!stops++)
                notify("STOPPING=1");
            log_write(RODA_LOG_NOTICE, "main", stops == 1 ? "stopping" : "stopping at once");
            broker_stop(broker, stops > 1);
            break;
        case SIGHUP:
            log_write(RODA_LOG_WARNING, "main",
                      "SIGHUP: this version cannot reload its configuration; restart it");
            break;
        case SIGUSR1:
            log_write(RODA_LOG_NOTICE, "main", "SIGUSR1: files are opened anew");
            broker_reopen(broker);
            break;
        default:
            break;
        }
    }
    broker_join(broker);
    if (__atomic_load_n((bool *)&broker->broken, __ATOMIC_ACQUIRE))
        give_up(run);
    system_pool_stop();
    if (__atomic_load_n((bool *)&broker->failed, __ATOMIC_ACQUIRE)) {
        log_write(RODA_LOG_ERROR, "main", "%s", broker->problem);
        return EXIT_FAILURE;
    }
    log_write(RODA_LOG_NOTICE, "main", "stopped");
    return EXIT_SUCCESS;
}

/* glibc raises the size from which it maps a block by itself each time such a block is freed; then
 * arrays that grow leave holes as large as they were in the heap. A fixed size keeps them out. */
static void keep_large_blocks_apart(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, 128 * 1024);
}

static int run_broker(struct run *run)
{
    uint8_t key[HASH_KEY_BYTES];
    const struct system *system = system_real();
    sigset_t signals;
    int r;

    keep_large_blocks_apart();
    block_signals(&signals);
    blame_install();
    system->random(system->kernel, key, sizeof key);
    hash_set_key(key);
    messages_open(run->conf->messages.format == CONF_FORMAT_JSON,
                  RODA_LOG_ERROR + (uint32_t)run->conf->messages.level);
    r = fit(run);
    if (r)
        return EXIT_FAILURE;
    run->main_thread = pthread_self();
    run->broker->changed = changed;
    run->broker->changed_arg = run;
    if (start(run)) {
        for (uint32_t i = 0; i < run->broker->n_workers; i++)
            if (run->broker->workers[i].threaded)
                give_up(run);
        return EXIT_FAILURE;
    }
    return wait_for_end(run, &signals);
}

static int check_only(struct run *run)
{
    if (fit(run) || check_machine(run))
        return EXIT_FAILURE;
    if (run->options.action == ACTION_DUMP)
        conf_dump(run->conf, print_line, stdout);
    else
        printf("%s: configuration usable\n", run->options.file);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const char *plugin_dir = getenv("RODA_PLUGIN_DIR");
    struct run run = {
        .options = {.file = RODA_CONF_FILE,
                    .plugin_dir = plugin_dir && plugin_dir[0] ? plugin_dir : RODA_PLUGIN_DIR}};
    int status = EXIT_FAILURE;

    if (parse_options(argc, argv, &run.options))
        return EXIT_USAGE;
    if (run.options.version)
        return version();
    if (run.options.plugin_help)
        return plugin_help(&run.options);
    if (!load(&run) && !tell_errors(&run))
        status = run.options.action == ACTION_RUN ? run_broker(&run) : check_only(&run);
    broker_free(run.broker);
    host_free(run.host);
    conf_free(run.conf);
    conf_errors_free(run.errors);
    return status;
}
