/* Becoming another user and making directories for him. What needs root is skipped without it;
 * what cannot be undone happens in a child. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "main/privileges.h"

#define NOBODY "nobody"

static char directory[64], problem[256];

static int set_up(void **state)
{
    (void)state;
    strcpy(directory, "/tmp/roda-test-privileges-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command);
}

static void nobody_of_that_name(void **state)
{
    (void)state;
    assert_true(privileges_user_exists("root"));
    assert_false(privileges_user_exists("nobody-has-this-name"));
    assert_int_equal(privileges_drop("nobody-has-this-name", problem, sizeof problem), -ENOENT);
    assert_string_equal(problem, "there is no user \"nobody-has-this-name\"");
    assert_int_equal(privileges_drop("", problem, sizeof problem), 0);
}

static int in_child(int (*what)(void))
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (!child)
        _exit(what());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int drop_and_look(void)
{
    const struct passwd *entry = getpwnam(NOBODY);
    uid_t uid = entry->pw_uid;
    gid_t gid = entry->pw_gid;

    if (privileges_drop(NOBODY, problem, sizeof problem))
        return 1;
    if (getuid() != uid || geteuid() != uid || getgid() != gid || getegid() != gid)
        return 2;
    if (!setuid(0) || !seteuid(0))
        return 3;
    if (privileges_drop(NOBODY, problem, sizeof problem)) /* he is that already */
        return 4;
    if (privileges_drop("root", problem, sizeof problem) != -EPERM)
        return 5;
    return strstr(problem, "only root can become user \"root\"") ? 0 : 6;
}

static void there_is_no_way_back(void **state)
{
    (void)state;
    if (geteuid() || !privileges_user_exists(NOBODY))
        skip();
    assert_int_equal(in_child(drop_and_look), 0);
}

static void directories_are_made_for_their_user(void **state)
{
    static const char *const made[] = {"/a", "/a/b", "/a/b/c"};
    char path[128];

    (void)state;
    if (geteuid() || !privileges_user_exists(NOBODY))
        skip();
    snprintf(path, sizeof path, "%s/a/b/c", directory);
    assert_int_equal(privileges_make_directory(path, NOBODY, problem, sizeof problem), 0);
    for (unsigned i = 0; i < 3; i++) { /* those on the way too, or he could not reach his own */
        struct stat st;
        snprintf(path, sizeof path, "%s%s", directory, made[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_uid, getpwnam(NOBODY)->pw_uid);
        assert_int_equal(st.st_mode & 0777, 0750);
    }
    snprintf(path, sizeof path, "%s/a/b/c", directory);
    assert_int_equal(privileges_make_directory(path, NOBODY, problem, sizeof problem), 0);
    assert_int_equal(privileges_make_directory(path, "nobody-has-this-name", problem,
                                               sizeof problem),
                     -ENOENT);
}

static void directories_are_made_as_far_as_they_are_missing(void **state)
{
    char path[5000];
    struct stat st;
    FILE *file;

    (void)state;
    snprintf(path, sizeof path, "%s/own//deeper/", directory);
    assert_int_equal(privileges_make_directory(path, "", problem, sizeof problem), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, geteuid());
    assert_int_equal(privileges_make_directory("", "", problem, sizeof problem), 0);
    snprintf(path, sizeof path, "%s/file", directory);
    file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(privileges_make_directory(path, "", problem, sizeof problem), -ENOTDIR);
    assert_non_null(strstr(problem, "/file: Not a directory"));
    strcat(path, "/below");
    assert_int_equal(privileges_make_directory(path, "", problem, sizeof problem), -ENOTDIR);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_int_equal(privileges_make_directory(path, "", problem, sizeof problem), -ENAMETOOLONG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_of_that_name),
        cmocka_unit_test(there_is_no_way_back),
        cmocka_unit_test(directories_are_made_for_their_user),
        cmocka_unit_test(directories_are_made_as_far_as_they_are_missing),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
