/* libcurl.c -- libcurl, loaded when TLS or a proxy is asked for.  Floor 3.  See worker/libcurl.h.
 */
#include "worker/libcurl.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

/* The version whose headers we were built with: another one may have other functions. */
#define LIBCURL_FILE "libcurl.so.4"

struct libcurl libcurl_fn;
static void *library;

static const struct {
	const char *name;
	size_t place;
} functions[] = {
#define LIBCURL_ENTRY(name) {"curl_" #name, offsetof(struct libcurl, name)},
	LIBCURL(LIBCURL_ENTRY)
#undef LIBCURL_ENTRY
};

static int missing(struct err *err)
{
	return err_set(err, ENOENT, "TLS and proxies are libcurl's: %s (apt-get install libcurl4)",
		       dlerror());
}

static int libcurl_open(struct libcurl *found, struct err *err)
{
	library = dlopen(LIBCURL_FILE, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL)
		return missing(err);
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		void *function = dlsym(library, functions[i].name);
		if (function == NULL)
			return missing(err);
		memcpy((char *)found + functions[i].place, &function, sizeof function);
	}
	return 0;
}

/* Neither unloaded nor ended: OpenSSL may not be initialised again after its end. */
int libcurl_load(struct err *err)
{
	struct libcurl found;
	if (libcurl_fn.global_init != NULL)
		return 0;
	if (libcurl_open(&found, err) == -1)
		return -1;
	if (found.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return err_set(err, ENOMEM, "cannot start libcurl (out of memory)");
	libcurl_fn = found;
	return 0;
}

void *libcurl_symbol(const char *name)
{
	return library != NULL ? dlsym(library, name) : NULL;
}
