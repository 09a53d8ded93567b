#ifndef RODA_MAIN_NOTIFY_H
#define RODA_MAIN_NOTIFY_H
/* Tells systemd, if it asked by NOTIFY_SOCKET, in the protocol of sd_notify(3). */

/* "READY=1", "STOPPING=1", "STATUS=...". A failure is no matter. */
void notify(const char *state);

#endif
