#ifndef RODA_MAIN_BLAME_H
#define RODA_MAIN_BLAME_H
/* On a fatal signal one line on standard error says whose hook was running on which worker; then
 * the signal does what it would have done. */

void blame_install(void);

#endif
