/* version.h -- the version, in one place.  Floor 1. */
#ifndef WORKER_VERSION_H
#define WORKER_VERSION_H

#define WORKER_VERSION "0.1.0"

#endif
