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

/* What is made just now is that user's, also on the way: others could not pass through. */
static int make(const char *path, const struct passwd *owner)
{
    struct stat st;

    if (!mkdir(path, 0750))
        return owner && chown(path, owner->pw_uid, owner->pw_gid) ? -errno : 0;
    if (errno == EEXIST)
        return stat(path, &st) ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
    return -errno;
}

int privileges_make_directory(const char *path, const char *user, char *problem, size_t size)
{
    const struct passwd *owner = NULL;
    char part[4096];
    int r = 0;

    if (user[0] && geteuid() == 0 && !(owner = find(user, problem, size)))
        return -ENOENT;
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
        r = make(part, owner);
    }
    if (r < 0)
        (void)snprintf(problem, size, "%s: %s", part, strerror(-r));
    return r;
}
