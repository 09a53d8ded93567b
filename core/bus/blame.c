#include "bus/bus.h"

/*
 * Timing of hooks costs two clock reads each, so it is off until a turn was too long; then each
 * hook of the next turns is timed, and the slowest one can be named.
 */

uint64_t bus_clock_ns(const struct bus *bus)
{
    const struct system *system = bus->ring->system;

    return system->monotonic_ns(system->kernel);
}

void bus_timed(struct bus *bus, const struct blame *blame, struct blame *outer)
{
    uint64_t spent_ns = bus_clock_ns(bus) - blame->since_ns;

    if (outer)
        outer->inner_ns += spent_ns;
    spent_ns -= blame->inner_ns; /* its own */
    if (spent_ns <= bus->slowest_ns || !blame->plugin)
        return;
    bus->slowest = *blame;
    bus->slowest_ns = spent_ns;
}
