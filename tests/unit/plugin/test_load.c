/* Loading a shared object: what does not fit is refused before any of its code runs. The plugin
 * "example" is the one that fits; what does not is it with a few bytes changed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "plugin/load.h"
#include "plugin/note.h"

static char example[4096]; /* its path */
static char directory[64];
static char problem[512];

static int set_up(void **state)
{
    const char *plugins = getenv("RODA_PLUGIN_DIR");

    (void)state;
    if (!plugins)
        return -1;
    snprintf(example, sizeof example, "%s/example/example.so", plugins);
    strcpy(directory, "/tmp/roda-test-load-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command);
}

static const char *path_of(const char *name)
{
    static char path[256];

    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* Copies example.so, with other bytes at a place of its note. */
static void copy(const char *name, size_t place, const void *to, size_t len)
{
    static char bytes[4u << 20];
    struct roda_note note = {5, 8, RODA_NOTE_TYPE, "roda", RODA_ABI, sizeof(struct roda_plugin)};
    FILE *file = fopen(example, "rb");
    size_t size;
    char *at;

    assert_non_null(file);
    size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_in_range(size, 1000, sizeof bytes - 1);
    at = memmem(bytes, size, &note, sizeof note);
    assert_non_null(at);
    if (len)
        memcpy(at + place, to, len);
    file = fopen(path_of(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static int load(const char *name, const char *path, struct loaded *ret)
{
    memset(ret, 0, sizeof *ret);
    problem[0] = '\0';
    return plugin_load(name, path, directory, ret, problem, sizeof problem);
}

static void expect_loaded(const char *name, const char *path, const char *where)
{
    struct loaded loaded;

    assert_int_equal(load(name, path, &loaded), 0);
    assert_string_equal(problem, "");
    assert_string_equal(loaded.name, "example");
    assert_string_equal(loaded.path, where);
    assert_int_equal(loaded.plugin.abi, RODA_ABI);
    plugin_unload(&loaded);
    assert_null(loaded.handle);
}

static void expect_refused(const char *name, const char *path, int error, const char *words)
{
    struct loaded loaded;

    assert_int_equal(load(name, path, &loaded), error);
    assert_null(loaded.handle);
    if (!strstr(problem, words))
        fail_msg("\"%s\" does not say \"%s\"", problem, words);
}

static void it_is_found_in_its_places(void **state)
{
    char nested[256];

    (void)state;
    expect_refused("example", "", -ENOENT, "neither example.so nor example/example.so is in /tmp/");
    snprintf(nested, sizeof nested, "%s", path_of("example"));
    assert_int_equal(mkdir(nested, 0700), 0);
    copy("example/example.so", 0, NULL, 0);
    expect_loaded("example", "", path_of("example/example.so"));
    copy("example.so", 0, NULL, 0);
    expect_loaded("example", "", path_of("example.so"));
    expect_loaded("example", example, example);
    expect_refused("example", "/nowhere/example.so", -ENOENT, "No such file");
}

/* dlopen() looks for a name without a slash in the system's folders. */
static void a_path_without_a_slash_is_a_file_here(void **state)
{
    char before[4096];

    (void)state;
    copy("here.so", 0, NULL, 0);
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(directory), 0);
    expect_loaded("example", "here.so", "./here.so");
    assert_int_equal(chdir(before), 0);
}

static void what_does_not_fit_is_refused_with_a_remedy(void **state)
{
    const size_t abi = offsetof(struct roda_note, abi), size = offsetof(struct roda_note, size);
    uint32_t odd;
    FILE *file;

    (void)state;
    odd = RODA_ABI + 1;
    copy("newer.so", abi, &odd, 4);
    expect_refused("example", path_of("newer.so"), -ELIBBAD, "update the broker");
    odd = RODA_ABI + 0x10000;
    copy("major.so", abi, &odd, 4);
    expect_refused("example", path_of("major.so"), -ELIBBAD, "was built for plugin ABI 1.");
    odd = sizeof(struct roda_plugin) + 8;
    copy("larger.so", size, &odd, 4);
    expect_refused("example", path_of("larger.so"), -ELIBBAD, "this broker knows");
    odd = 8;
    copy("smaller.so", size, &odd, 4);
    expect_refused("example", path_of("smaller.so"), -ELIBBAD, "has 8 bytes");
    copy("nameless.so", offsetof(struct roda_note, name), "soda", 4);
    expect_refused("example", path_of("nameless.so"), -ENODATA, "RODA_PLUGIN()");
    copy("other.so", 0, NULL, 0);
    expect_refused("other", "", -EINVAL, "its name is not the one it is loaded by");
    file = fopen(path_of("text.so"), "w");
    assert_non_null(file);
    fputs("#!/bin/sh\necho no plugin\n", file);
    fclose(file);
    expect_refused("text", "", -ENOEXEC, "no shared object");
    memset(problem, 0, sizeof problem);
}

static void a_path_may_be_too_long(void **state)
{
    static char path[5000];
    struct loaded loaded;

    (void)state;
    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    assert_int_equal(load("example", path, &loaded), -ENAMETOOLONG);
    assert_non_null(strstr(problem, "too long"));
}

static void memory_may_be_out(void **state)
{
    struct loaded loaded;

    (void)state;
    memory_fail_at(1, 1);
    assert_int_equal(load("example", example, &loaded), -ENOMEM);
    memory_fail_at(0, 0);
    assert_null(loaded.handle);
    assert_null(loaded.path);
}

static void tables_have_strides(void **state)
{
    struct grown {
        const char *name;
        int more;
    };
    static const struct grown table[] = {{"one", 1}, {"two", 2}, {NULL, 0}};

    (void)state;
    assert_ptr_equal(plugin_table_entry(table, sizeof *table, 0), &table[0]);
    assert_ptr_equal(plugin_table_entry(table, sizeof *table, 1), &table[1]);
    assert_null(plugin_table_entry(table, sizeof *table, 2));
    assert_null(plugin_table_entry(table, 0, 0));
    assert_null(plugin_table_entry(NULL, sizeof *table, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_found_in_its_places),
        cmocka_unit_test(a_path_without_a_slash_is_a_file_here),
        cmocka_unit_test(what_does_not_fit_is_refused_with_a_remedy),
        cmocka_unit_test(a_path_may_be_too_long),
        cmocka_unit_test(memory_may_be_out),
        cmocka_unit_test(tables_have_strides),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
