/* libcurl.h -- libcurl, loaded when TLS or a proxy is asked for.  Floor 3.
 *
 * It brings thirty libraries along.  Linked in, they would cost every start ten milliseconds and
 * every worker some megabytes, most of which talk to a server or an engine without TLS.
 *
 * Once libcurl_load() has said 0, its functions are called by their own names, as the manual of
 * libcurl has them: each of those named below is a pointer into the loaded library.
 */
#ifndef WORKER_LIBCURL_H
#define WORKER_LIBCURL_H

#define CURL_DISABLE_TYPECHECK /* which would make macros of what are pointers here */
#include <curl/curl.h>

#include "worker/err.h"

/* What is used of it: its own names without "curl_" in front. */
#define LIBCURL(X)                                                                                 \
	X(global_init)                                                                             \
	X(easy_init)                                                                               \
	X(easy_duphandle)                                                                          \
	X(easy_cleanup)                                                                            \
	X(easy_setopt)                                                                             \
	X(easy_getinfo)                                                                            \
	X(easy_pause)                                                                              \
	X(easy_recv)                                                                               \
	X(easy_send)                                                                               \
	X(easy_strerror)                                                                           \
	X(multi_init)                                                                              \
	X(multi_cleanup)                                                                           \
	X(multi_add_handle)                                                                        \
	X(multi_remove_handle)                                                                     \
	X(multi_socket_action)                                                                     \
	X(multi_info_read)                                                                         \
	X(multi_assign)                                                                            \
	X(multi_setopt)                                                                            \
	X(multi_strerror)                                                                          \
	X(share_init)                                                                              \
	X(share_setopt)                                                                            \
	X(share_cleanup)                                                                           \
	X(slist_append)                                                                            \
	X(slist_free_all)                                                                          \
	X(version)

#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt
#undef curl_share_setopt

struct libcurl {
#define LIBCURL_FIELD(name) __typeof__(curl_##name) *name;
	LIBCURL(LIBCURL_FIELD)
#undef LIBCURL_FIELD
};

/* Filled once, for the whole process, by the loop's thread. */
extern struct libcurl libcurl_fn;

/* libcurl_load(err): 0, or -1 with a text that says what to install.  Before anything else. */
int libcurl_load(struct err *err);

/* libcurl_symbol(name): a function of a library that came along with it, or NULL. */
void *libcurl_symbol(const char *name);

#define curl_easy_init		 libcurl_fn.easy_init
#define curl_easy_duphandle	 libcurl_fn.easy_duphandle
#define curl_easy_cleanup	 libcurl_fn.easy_cleanup
#define curl_easy_setopt	 libcurl_fn.easy_setopt
#define curl_easy_getinfo	 libcurl_fn.easy_getinfo
#define curl_easy_pause		 libcurl_fn.easy_pause
#define curl_easy_recv		 libcurl_fn.easy_recv
#define curl_easy_send		 libcurl_fn.easy_send
#define curl_easy_strerror	 libcurl_fn.easy_strerror
#define curl_multi_init		 libcurl_fn.multi_init
#define curl_multi_cleanup	 libcurl_fn.multi_cleanup
#define curl_multi_add_handle	 libcurl_fn.multi_add_handle
#define curl_multi_remove_handle libcurl_fn.multi_remove_handle
#define curl_multi_socket_action libcurl_fn.multi_socket_action
#define curl_multi_info_read	 libcurl_fn.multi_info_read
#define curl_multi_assign	 libcurl_fn.multi_assign
#define curl_multi_setopt	 libcurl_fn.multi_setopt
#define curl_multi_strerror	 libcurl_fn.multi_strerror
#define curl_share_init		 libcurl_fn.share_init
#define curl_share_setopt	 libcurl_fn.share_setopt
#define curl_share_cleanup	 libcurl_fn.share_cleanup
#define curl_slist_append	 libcurl_fn.slist_append
#define curl_slist_free_all	 libcurl_fn.slist_free_all
#define curl_version		 libcurl_fn.version

#endif
