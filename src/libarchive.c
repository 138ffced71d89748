/* libarchive.c -- libarchive, loaded when the first archive is met.  Floor 3. */
#include "worker/libarchive.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* The version whose headers we were built with: another one may have other functions. */
#define LIBARCHIVE_FILE "libarchive.so.13"

struct libarchive libarchive_fn;

static const struct {
	const char *name;
	size_t place;
} functions[] = {{"archive_errno", offsetof(struct libarchive, code)},
#define LIBARCHIVE_ENTRY(name) {"archive_" #name, offsetof(struct libarchive, name)},
		 LIBARCHIVE(LIBARCHIVE_ENTRY)
#undef LIBARCHIVE_ENTRY
};

static int missing(struct err *err)
{
	return err_set(err, ENOENT, "archives need %s: %s (Debian's package is libarchive13)",
		       LIBARCHIVE_FILE, dlerror());
}

/* Never unloaded: what it brought along may have left handlers behind. */
int libarchive_load(struct err *err)
{
	if (libarchive_fn.read_new != NULL)
		return 0;
	void *library = dlopen(LIBARCHIVE_FILE, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		return missing(err);
	struct libarchive found;
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		void *function = dlsym(library, functions[i].name);
		if (function == NULL)
			return missing(err);
		memcpy((char *)&found + functions[i].place, &function, sizeof function);
	}
	libarchive_fn = found;
	return 0;
}
