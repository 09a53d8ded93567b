/* What this process may use: the tests lower it and look again. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "main/machine.h"

static void cpus_are_those_this_process_may_use(void **state)
{
    cpu_set_t before, one;
    size_t cpu = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_in_range(machine_cpus(), 1, CPU_COUNT(&before));
    while (!CPU_ISSET(cpu, &before))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(machine_cpus(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void memory_is_no_more_than_there_is(void **state)
{
    uint64_t physical = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    (void)state;
    assert_in_range(machine_memory(), 1u << 20, physical);
}

static void descriptors_are_the_soft_limit(void **state)
{
    struct rlimit before, lower;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(machine_descriptors(), before.rlim_cur);
    lower = before;
    lower.rlim_cur = before.rlim_cur / 2;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &lower), 0);
    assert_int_equal(machine_descriptors(), lower.rlim_cur);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpus_are_those_this_process_may_use),
        cmocka_unit_test(memory_is_no_more_than_there_is),
        cmocka_unit_test(descriptors_are_the_soft_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
