/* embed.h -- the Lua files inside the binary, compiled; config/embed.sh makes them.  Floor 6. */
#ifndef WORKER_EMBED_H
#define WORKER_EMBED_H

#include "worker/host.h"

/* Ends with a NULL name. */
extern const struct host_file embed_files[];

#endif
