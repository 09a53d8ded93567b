#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "moment.h"
#include "program.h"
#include "progress.h"

/*
 * roda-log: reads the segments of the plugin "log", of a broker that runs or of one that does not.
 *
 *   folder   the files of the directory, and a window over one
 *   scan     records where any byte may be wrong
 *   front    what the beginning of a segment says about the one before it
 *   reader   a partition's records, oldest first
 *   merge    all partitions' messages in the order of time; print and export show them
 *   verify, stats   go through the partitions one after the other
 *
 * The records themselves are record.c of the plugin, names are folded by the broker's own text.c:
 * what is read here is what the broker reads. Nothing is ever written to the directory.
 *
 * Memory that is out ends the program: there is nobody it could serve after that.
 */
enum {
    OPTION_SINCE = 256,
    OPTION_UNTIL,
    OPTION_SENDER,
    OPTION_NUMBERS,
    OPTION_PRIVATE,
    OPTION_FORMAT,
    OPTION_PROGRESS
};

enum { OUTPUT_BYTES = 1 << 18 };

static const char help[] =
    "Usage: roda-log [-d DIRECTORY] [COMMAND] [OPTION ...]\n"
    "Reads the chat log of roda, while the broker runs or not.\n"
    "\n"
    "Commands:\n"
    "  print     one line for each message (if no command is given)\n"
    "  export    all messages, with --format\n"
    "  verify    read everything and tell what is damaged\n"
    "  stats     what there is of each room\n"
    "\n"
    "  -d, --directory DIR  of the log (/var/lib/roda/log)\n"
    "  -f, --follow         print, export: wait for more, until interrupted\n"
    "      --format FORMAT  export: text (as the plugin's text files) or jsonl (default)\n"
    "      --progress       tell on standard error how far it is\n"
    "  -h, --help           this text\n"
    "  -V, --version        the version\n"
    "\n"
    "Which messages (not for verify):\n"
    "  -r, --room ROOM      of this room; may be repeated\n"
    "      --since TIME     not older: 2026-11-24, 2026-11-24T18:30:00Z, -2h, now\n"
    "      --until TIME     older than that\n"
    "      --sender NICK    by this nick\n"
    "      --numbers A-B    with these numbers in their room; A- and -B too\n"
    "      --private        private messages too\n"
    "\n"
    "Exit status: 0 fine, 1 something is damaged, 2 it could not be done. See roda-log(1).\n";

static const struct option options[] = {
    {"directory", required_argument, NULL, 'd'},
    {"follow", no_argument, NULL, 'f'},
    {"room", required_argument, NULL, 'r'},
    {"since", required_argument, NULL, OPTION_SINCE},
    {"until", required_argument, NULL, OPTION_UNTIL},
    {"sender", required_argument, NULL, OPTION_SENDER},
    {"numbers", required_argument, NULL, OPTION_NUMBERS},
    {"private", no_argument, NULL, OPTION_PRIVATE},
    {"format", required_argument, NULL, OPTION_FORMAT},
    {"progress", no_argument, NULL, OPTION_PROGRESS},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

/* ---- what all parts need ---------------------------------------------------------------- */

static void vtell(const char *fmt, va_list args) __attribute__((format(printf, 1, 0)));
static void vtell(const char *fmt, va_list args)
{
    progress_hide();
    (void)fflush(stdout);
    (void)fputs("roda-log: ", stderr);
    (void)vfprintf(stderr, fmt, args);
    (void)fputc('\n', stderr);
}

void tell(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vtell(fmt, args);
    va_end(args);
}

void task_failed(struct task *task, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vtell(fmt, args);
    va_end(args);
    task->status = STATUS_FAILED;
}

void *memory_get(size_t size)
{
    void *memory = calloc(1, size);

    if (memory)
        return memory;
    tell("out of memory");
    exit(STATUS_FAILED);
}

void *memory_resize(void *memory, size_t size)
{
    void *resized = realloc(memory, size);

    if (resized)
        return resized;
    tell("out of memory");
    exit(STATUS_FAILED);
}

/* ---- the command line ------------------------------------------------------------------- */

int64_t time_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void want_time(struct task *task, const char *option, const char *text, int64_t *ret_ns)
{
    if (moment_parse(text, time_now_ns(), ret_ns))
        task_failed(task,
                    "%s: \"%s\" is no time; write 2026-11-24, 2026-11-24T18:30:00Z, -2h or now",
                    option, text);
}

/* What may be given once: the second would silently hold. */
static void take_once(struct task *task, int option)
{
    static const struct {
        int option;
        const char *name;
    } once[] = {{OPTION_SINCE, "since"},
                {OPTION_UNTIL, "until"},
                {OPTION_SENDER, "sender"},
                {OPTION_NUMBERS, "numbers"},
                {OPTION_FORMAT, "format"}};

    for (size_t i = 0; i < sizeof(once) / sizeof(*once); i++) {
        uint32_t bit = 1u << (once[i].option - OPTION_SINCE);

        if (once[i].option != option)
            continue;
        if (task->given & bit)
            task_failed(task, "--%s is given twice; give it once", once[i].name);
        task->given |= bit;
    }
}

static void take_format(struct task *task, const char *format)
{
    task->json = !strcmp(format, "jsonl");
    if (!task->json && strcmp(format, "text") != 0)
        task_failed(task, "--format: \"%s\" is none; write text or jsonl", format);
}

/* 0: it is none of them. */
static int take_filter(struct task *task, int option, const char *value)
{
    struct filter *filter = &task->filter;

    switch (option) {
    case 'r':
        if (filter_room(filter, value))
            task_failed(task, "--room: \"%s\" cannot be the name of a room", value);
        return 1;
    case OPTION_SINCE:
        want_time(task, "--since", value, &filter->since_ns);
        return 1;
    case OPTION_UNTIL:
        want_time(task, "--until", value, &filter->until_ns);
        return 1;
    case OPTION_SENDER:
        if (filter_sender(filter, value))
            task_failed(task, "--sender: \"%s\" cannot be a nick", value);
        return 1;
    case OPTION_NUMBERS:
        if (filter_numbers(filter, value))
            task_failed(task, "--numbers: \"%s\" is no range; write 10-20, 10-, -20 or 10", value);
        return 1;
    case OPTION_PRIVATE:
        filter->is_private = 1;
        return 1;
    default:
        return 0;
    }
}

/* 1: that was all there is to do. */
static int take_options(struct task *task, int argc, char **argv)
{
    int option;

    while ((option = getopt_long(argc, argv, "d:fr:hV", options, NULL)) != -1) {
        take_once(task, option);
        if (take_filter(task, option, optarg))
            continue;
        switch (option) {
        case 'd':
            task->directory = optarg;
            break;
        case 'f':
            task->follow = 1;
            break;
        case OPTION_FORMAT:
            take_format(task, optarg);
            break;
        case OPTION_PROGRESS:
            task->progress = 1;
            break;
        case 'h':
            (void)fputs(help, stdout);
            return 1;
        case 'V':
            (void)puts("roda-log " RODA_VERSION);
            return 1;
        default: /* getopt has said what is wrong */
            task->status = STATUS_FAILED;
        }
    }
    return 0;
}

typedef void command_fn(struct task *task);

static command_fn *command_of(struct task *task, int argc, char **argv)
{
    static const struct {
        const char *name;
        command_fn *run;
    } commands[] = {{"print", run_print},
                    {"export", run_export},
                    {"verify", run_verify},
                    {"stats", run_stats}};
    const char *name = optind < argc ? argv[optind] : "print";

    if (optind + 1 < argc)
        task_failed(task, "\"%s\" is too much", argv[optind + 1]);
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        if (strcmp(commands[i].name, name) != 0)
            continue;
        if (task->follow && commands[i].run != run_print && commands[i].run != run_export)
            task_failed(task, "--follow is for print and export");
        if (task->given & 1u << (OPTION_FORMAT - OPTION_SINCE) && commands[i].run != run_export)
            task_failed(task, "--format is for export; write roda-log export --format %s",
                        task->json ? "jsonl" : "text");
        return commands[i].run;
    }
    task_failed(task, "\"%s\" is no command; there are print, export, verify and stats", name);
    return NULL;
}

int task_look(struct task *task)
{
    int r = folder_read(task->directory, task->partitions, &task->folder);
    const char *remedy = "";

    if (!r)
        return 1;
    if (r == -ENOENT)
        remedy = "; -d says where the log is";
    else if (r == -ENOTDIR)
        remedy = "; -d names the directory in which the segments are, and no file";
    else if (r == -EACCES)
        remedy = "; read it as root or as the broker's user, or join its group";
    task_failed(task, "%s: %s%s", task->directory, strerror(-r), remedy);
    return 0;
}

static void run(struct task *task, command_fn *command)
{
    task->partitions = command == run_verify ? UINT32_MAX : filter_partitions(&task->filter);
    if (!task_look(task))
        return;
    if (!task->folder.n && !task->follow && task->partitions == UINT32_MAX && command != run_verify)
        tell("%s: there is no segment in it", task->directory);
    command(task);
    folder_free(&task->folder);
    if (fflush(stdout) && task->status != STATUS_FAILED)
        task_failed(task, "standard output: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    static char name[] = "roda-log";
    struct task task = {.directory = "/var/lib/roda/log", .json = 1};
    command_fn *command;

    if (argc > 0)
        argv[0] = name; /* getopt begins with it what it says */
    if (!isatty(STDOUT_FILENO))
        (void)setvbuf(stdout, NULL, _IOFBF, OUTPUT_BYTES);
    filter_init(&task.filter);
    if (!take_options(&task, argc, argv)) {
        command = command_of(&task, argc, argv);
        if (task.filter.since_ns >= task.filter.until_ns)
            task_failed(&task, "--since must be before --until: no message is between them");
        if (task.status == STATUS_FINE)
            run(&task, command);
        else
            (void)fputs("Try roda-log --help.\n", stderr);
    }
    filter_free(&task.filter);
    return task.status;
}
