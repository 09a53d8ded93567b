#include "log.h"

#include <errno.h>
#include <string.h>

/*
 * The directories that the configuration names: what is wrong with them before the start, and why
 * they cannot be made then.
 */

/* The next name of a path, without what says nothing: further slashes, and ".". */
static struct roda_str next_name(const char **at)
{
    struct roda_str name;

    do {
        *at += strspn(*at, "/");
        name = (struct roda_str){*at, strcspn(*at, "/")};
        *at += name.len;
    } while (name.len == 1 && *name.ptr == '.');
    return name;
}

/* Whether it is that directory or below it, as far as the names say. */
static int lies_in(const char *path, const char *directory)
{
    for (;;) {
        struct roda_str wanted = next_name(&directory), name = next_name(&path);

        if (!wanted.len)
            return 1;
        if (wanted.len != name.len || memcmp(wanted.ptr, name.ptr, name.len) != 0)
            return 0;
    }
}

int log_directory_check(const struct log_conf *conf, struct roda_conf_errors *errors)
{
    if (!*conf->directory)
        return roda_conf_error(errors, "directory",
                               "name the directory of the segments; without this line it is log, "
                               "below core.state_dir; a broker that keeps nothing has no "
                               "[plugin log]");
    if (*conf->text_directory && lies_in(conf->text_directory, conf->directory))
        return roda_conf_error(errors, "text_directory",
                               "it lies in %s, where the segments are; name one beside it",
                               conf->directory);
    return 0;
}

void log_directory_failed(struct roda_ctx *x, enum log_directory which, int error)
{
    struct log_shared *shared = x->shared;
    const char *path = log_conf_of(x)->directory, *option = "directory";
    const char *remedy = "mend the disk, or name another directory";

    if (which == LOG_TEXT_DIRECTORY) {
        path = log_conf_of(x)->text_directory;
        option = "text_directory";
    }
    if (__atomic_fetch_or(&shared->told, 1u << which, __ATOMIC_RELAXED) & 1u << which)
        return;
    if (error == -ENOENT)
        remedy = "the directory above it is missing: make that one, and let the broker's user "
                 "write there";
    else if (error == -ENOTDIR)
        remedy = "it, or what stands before one of its slashes, is a file: name another directory, "
                 "or move the file away";
    else if (error == -EACCES)
        remedy = "let the broker's user write in the directory above it, or make it for that user";
    roda_log(x, RODA_LOG_ERROR, "[plugin log] %s = %s: %s; %s", option, path, strerror(-error),
             remedy);
}
