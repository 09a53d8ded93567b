#ifndef RODA_MAIN_MACHINE_H
#define RODA_MAIN_MACHINE_H
/* What this process may use of the machine. */
#include <stdint.h>

uint32_t machine_cpus(void);        /* affinity and cgroup quota; 1 to 256 */
uint64_t machine_memory(void);      /* bytes: RAM, or the cgroup's memory.max if that is less */
uint64_t machine_descriptors(void); /* soft RLIMIT_NOFILE */

#endif
