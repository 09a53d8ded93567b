#include "main/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Dropped before rings and files exist: a ring acts with the credentials of who made it, and a
 * file belongs to who created it. */

static const struct passwd *find(const char *user, char *problem, size_t size)
{
    const struct passwd *entry = getpwnam(user);

    if (!entry)
        (void)snprintf(problem, size, "there is no user \"%s\"", user);
    return entry;
}

bool privileges_user_exists(const char *user)
{
    return getpwnam(user) != NULL;
}

int privileges_drop(const char *user, char *problem, size_t size)
{
    const struct passwd *entry;

    if (!user[0])
        return 0;
    entry = find(user, problem, size);
    if (!entry)
        return -ENOENT;
    if (geteuid() == entry->pw_uid)
        return 0;
    if (geteuid() != 0) {
        (void)snprintf(problem, size, "only root can become user \"%s\"; start as root or as %s",
                       user, user);
        return -EPERM;
    }
    if (initgroups(user, entry->pw_gid) || setgid(entry->pw_gid) || setuid(entry->pw_uid)) {
        (void)snprintf(problem, size, "cannot become user \"%s\": %s", user, strerror(errno));
        return -EPERM;
    }
    if (entry->pw_uid && !setuid(0)) {
        (void)snprintf(problem, size, "root came back after becoming \"%s\"", user);
        return -EPERM;
    }
    return 0;
}

static int make(const char *path)
{
    struct stat st;

    if (!mkdir(path, 0750))
        return 1;
    if (errno == EEXIST)
        return stat(path, &st) ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
    return -errno;
}

int privileges_make_directory(const char *path, const char *user, char *problem, size_t size)
{
    char part[4096];
    int r = 0;

    if (strlen(path) >= sizeof part) {
        (void)snprintf(problem, size, "%s: the path is too long", path);
        return -ENAMETOOLONG;
    }
    for (const char *end = path; r >= 0 && *end;) {
        end = strchr(end + 1, '/');
        if (!end)
            end = path + strlen(path);
        memcpy(part, path, (size_t)(end - path));
        part[end - path] = '\0';
        r = make(part);
    }
    if (r < 0) {
        (void)snprintf(problem, size, "%s: %s", part, strerror(-r));
        return r;
    }
    if (r == 1 && user[0] && geteuid() == 0) { /* made just now: it is that user's */
        const struct passwd *entry = find(user, problem, size);
        if (!entry || chown(path, entry->pw_uid, entry->pw_gid))
            return -ENOENT;
    }
    return 0;
}
