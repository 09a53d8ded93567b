/* The preflight where io_uring works, and in children where a filter, a limit or a sysctl (bound
 * over in a mount namespace of the child's own) is in the way: which sentence comes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring/preflight.h"

struct outcome {
    int result;
    bool skipped;
    struct preflight preflight;
    char problem[1024];
};

static struct preflight sizes(unsigned workers)
{
    return (struct preflight){.workers = workers,
                              .sq_entries = 1024,
                              .cq_entries = 4096,
                              .buffers = 1024};
}

/* Runs the preflight in a child that prepare() has put in trouble. */
static struct outcome run_in_child(unsigned workers, bool (*prepare)(void))
{
    struct outcome outcome = {0};
    int ends[2], status;

    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        outcome.preflight = sizes(workers);
        if (prepare && !prepare())
            outcome.skipped = true;
        else
            outcome.result =
                preflight_run(&outcome.preflight, outcome.problem, sizeof outcome.problem);
        _exit(write(ends[1], &outcome, sizeof outcome) != sizeof outcome);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &outcome, sizeof outcome), sizeof outcome);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    if (outcome.skipped)
        skip();
    return outcome;
}

static void expect_words(const struct outcome *outcome, int result, const char *const *words)
{
    assert_int_equal(outcome->result, result);
    for (; *words; words++) {
        if (strstr(outcome->problem, *words))
            continue;
        print_error("'%s' is not in: %s\n", *words, outcome->problem);
        fail();
    }
}

#define EXPECT(outcome, result, ...)                                                               \
    expect_words(outcome, result, (const char *const[]){__VA_ARGS__, NULL})

/* ---- troubles --------------------------------------------------------------------------- */

static bool filter(unsigned call, unsigned error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static bool setup_eperm(void)
{
    return filter(SYS_io_uring_setup, EPERM);
}

static bool setup_enosys(void)
{
    return filter(SYS_io_uring_setup, ENOSYS);
}

static bool setup_einval(void)
{
    return filter(SYS_io_uring_setup, EINVAL);
}

static bool enter_eperm(void)
{
    return filter(SYS_io_uring_enter, EPERM);
}

static bool register_enosys(void)
{
    return filter(SYS_io_uring_register, ENOSYS);
}

static bool enter_etime(void) /* a sandbox whose enter does nothing */
{
    return filter(SYS_io_uring_enter, ETIME);
}

/* Every system call of the ring refused, and the sysctl shows why. */
static bool sysctl_says(const char *name, const char *value)
{
    char path[64], from[] = "/tmp/roda-test-sysctl-XXXXXX";

    snprintf(path, sizeof path, "/proc/sys/kernel/%s", name);
    int fd = mkstemp(from);
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        return false;
    close(fd);
    chmod(from, 0644);
    bool bound = mount(from, path, NULL, MS_BIND, NULL) == 0;
    unlink(from);
    return bound;
}

static bool own_mounts(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static bool become_nobody(void)
{
    return setgroups(0, NULL) == 0 && setgid(64123) == 0 && setuid(64123) == 0;
}

static bool disabled_2(void)
{
    return own_mounts() && sysctl_says("io_uring_disabled", "2\n") && setup_eperm();
}

static bool disabled_1_with_group(void)
{
    return own_mounts() && sysctl_says("io_uring_disabled", "1\n") &&
           sysctl_says("io_uring_group", "4711\n") && become_nobody() && setup_eperm();
}

static bool disabled_1_without_group(void)
{
    return own_mounts() && sysctl_says("io_uring_disabled", "1\n") &&
           sysctl_says("io_uring_group", "-1\n") && become_nobody() && setup_eperm();
}

static bool limit_memlock(rlim_t bytes)
{
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = bytes};

    return setrlimit(RLIMIT_MEMLOCK, &limit) == 0 && become_nobody();
}

static bool memlock_64k(void)
{
    return limit_memlock(64 << 10);
}

static bool memlock_400k(void) /* one worker's ring fits, four do not */
{
    return limit_memlock(400 << 10);
}

static bool memlock_200k(void)
{
    return limit_memlock(200 << 10);
}

static bool no_descriptors(void)
{
    struct rlimit limit = {.rlim_cur = 3, .rlim_max = 3};

    for (int fd = dup(1); fd >= 0 && fd < 20; fd = dup(1))
        ;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* ---- tests ------------------------------------------------------------------------------ */

static void all_is_well(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(2, NULL);

    if (outcome.result)
        print_error("%s\n", outcome.problem);
    assert_int_equal(outcome.result, 0);
    assert_string_equal(outcome.problem, "");
    assert_true(outcome.preflight.descriptors >= 64);
    assert_true(outcome.preflight.kernel[0]);
    assert_non_null(strstr(outcome.preflight.features, "restrictions"));
    assert_int_equal(outcome.preflight.memlock_need_bytes,
                     2 * (64 * 1024 + 16 * 4096 + 16 * 1024 + 4096));
}

static void it_is_quick(void **state)
{
    (void)state;
    struct preflight p = sizes(1);
    char problem[1024];
    struct timespec start, end;

    /* The best of some runs: the machine may be busy. */
    int64_t best_ns = INT64_MAX;
    for (int i = 0; i < 20; i++) {
        clock_gettime(CLOCK_MONOTONIC, &start);
        assert_int_equal(preflight_run(&p, problem, sizeof problem), 0);
        clock_gettime(CLOCK_MONOTONIC, &end);
        int64_t took = (end.tv_sec - start.tv_sec) * 1000000000 + end.tv_nsec - start.tv_nsec;
        if (took < best_ns)
            best_ns = took;
    }
    assert_in_range(best_ns, 1, 50000000);
}

static void seccomp_is_named(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(1, setup_eperm);
    EXPECT(&outcome, -EPERM, "seccomp", "io_uring_setup", "io_uring_register", "epoll");
    outcome = run_in_child(1, setup_enosys);
    EXPECT(&outcome, -ENOSYS, "seccomp", "io_uring_setup", outcome.preflight.kernel, "epoll");
    outcome = run_in_child(1, enter_eperm);
    EXPECT(&outcome, -EPERM, "seccomp", "io_uring_enter");
    outcome = run_in_child(1, register_enosys);
    EXPECT(&outcome, -ENOSYS, "seccomp", "io_uring_register");
}

static void a_hollow_sandbox_is_found_out(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(1, enter_etime);
    EXPECT(&outcome, -EOPNOTSUPP, "trial", "timeouts", "sandbox");
}

static void an_old_kernel_is_named(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(1, setup_einval);
    EXPECT(&outcome, -EINVAL, "6.1", outcome.preflight.kernel);
}

static void sysctl_2_is_named(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(1, disabled_2);
    EXPECT(&outcome, -EPERM, "kernel.io_uring_disabled = 2", "kernel.io_uring_group");
}

static void sysctl_1_names_the_group(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(1, disabled_1_with_group);
    EXPECT(&outcome, -EPERM, "kernel.io_uring_disabled = 1", "4711");
}

static void sysctl_1_without_group(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(1, disabled_1_without_group);
    EXPECT(&outcome, -EPERM, "kernel.io_uring_disabled = 1", "no group is named");
}

/* Whether this kernel counts rings against the limit, by what it does with 64 kB. */
static bool kernel_charges(void)
{
    return run_in_child(1, memlock_64k).result == -ENOMEM;
}

static void too_little_memlock_is_told_in_numbers(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(1, memlock_64k);
    if (!outcome.result)
        skip();
    EXPECT(&outcome, -ENOMEM, "148 kB", "64 kB", "LimitMEMLOCK=infinity", "ulimit -l");
}

static void memlock_counts_all_workers(void **state)
{
    (void)state;
    if (!kernel_charges())
        skip();
    struct outcome outcome = run_in_child(4, memlock_400k);
    EXPECT(&outcome, -ENOMEM, "4 workers", "592 kB", "400 kB");
    outcome = run_in_child(1, memlock_200k);
    assert_int_equal(outcome.result, 0);
}

static void no_descriptor_is_named(void **state)
{
    (void)state;
    struct outcome outcome = run_in_child(1, no_descriptors);
    EXPECT(&outcome, -EMFILE, "descriptor", "LimitNOFILE");
}

static void explanations_need_no_trial(void **state)
{
    (void)state;
    struct preflight p = sizes(3);
    struct outcome outcome = {0};

    strcpy(p.kernel, "5.15.0");
    p.memlock_need_bytes = 3 << 20;
    p.memlock_limit_bytes = UINT64_MAX;
    preflight_explain(-ENOMEM, &p, outcome.problem, sizeof outcome.problem);
    EXPECT(&outcome, 0, "3 workers", "3072 kB", "memory limit");
    preflight_explain(ENFILE, &p, outcome.problem, sizeof outcome.problem);
    EXPECT(&outcome, 0, "fs.file-max");
    preflight_explain(-ENOSYS, &p, outcome.problem, sizeof outcome.problem);
    EXPECT(&outcome, 0, "5.15.0", "CONFIG_IO_URING");
    preflight_explain(-EIO, &p, outcome.problem, sizeof outcome.problem);
    EXPECT(&outcome, 0, "5.15.0", strerror(EIO));
    preflight_explain(-EPERM, &p, outcome.problem, 20); /* cut, not overrun */
    assert_int_equal(strlen(outcome.problem), 19);
}

static void descriptors_are_raised(void **state)
{
    (void)state;
    struct rlimit before, low, after;
    uint64_t limit = 0;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = (struct rlimit){.rlim_cur = 256, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_int_equal(preflight_raise_descriptors(&limit), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &after), 0);
    assert_true(after.rlim_cur == before.rlim_max);
    assert_true(limit == (before.rlim_max == RLIM_INFINITY ? UINT64_MAX : before.rlim_max));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_well),
        cmocka_unit_test(it_is_quick),
        cmocka_unit_test(seccomp_is_named),
        cmocka_unit_test(a_hollow_sandbox_is_found_out),
        cmocka_unit_test(an_old_kernel_is_named),
        cmocka_unit_test(sysctl_2_is_named),
        cmocka_unit_test(sysctl_1_names_the_group),
        cmocka_unit_test(sysctl_1_without_group),
        cmocka_unit_test(too_little_memlock_is_told_in_numbers),
        cmocka_unit_test(memlock_counts_all_workers),
        cmocka_unit_test(no_descriptor_is_named),
        cmocka_unit_test(explanations_need_no_trial),
        cmocka_unit_test(descriptors_are_raised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
