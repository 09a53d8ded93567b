#include "main/machine.h"

#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* Read once, at start-up, from the kernel's own files. cgroup v2 only; the process's own cgroup is
 * found in /proc/self/cgroup. */

static int cgroup_file(const char *name, char *buf, int size)
{
    char line[512] = "", path[700];
    FILE *file = fopen("/proc/self/cgroup", "re");
    int ok;

    if (!file)
        return 0;
    ok = fscanf(file, "0::%511[^\n]", line) == 1;
    fclose(file);
    if (!ok)
        return 0;
    (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", line, name);
    file = fopen(path, "re");
    if (!file)
        return 0;
    ok = fgets(buf, size, file) != NULL;
    fclose(file);
    return ok;
}

uint32_t machine_cpus(void)
{
    cpu_set_t set;
    unsigned long long quota, period;
    char text[64];
    long n = 1;

    if (!sched_getaffinity(0, sizeof set, &set))
        n = CPU_COUNT(&set);
    if (cgroup_file("cpu.max", text, sizeof text) &&
        sscanf(text, "%llu %llu", &quota, &period) == 2 && period) {
        long limit = (long)((quota + period - 1) / period);
        n = limit && limit < n ? limit : n;
    }
    return n < 1 ? 1 : n > 256 ? 256 : (uint32_t)n;
}

uint64_t machine_memory(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    unsigned long long limit;
    char text[64];

    if (cgroup_file("memory.max", text, sizeof text) && sscanf(text, "%llu", &limit) == 1 &&
        limit < bytes)
        bytes = limit;
    return bytes;
}

uint64_t machine_descriptors(void)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) ? 1024 : limit.rlim_cur;
}
