/* mask_forms.h -- in which forms a secret may turn up in a log.  Floor 1.
 *
 * As it is; with the other kind of newline, or blanks for newlines; each longer line on its own (a
 * key file is printed line by line); base64 in both alphabets and at all three places it may have
 * in a group (a token inside "user:token"), also wrapped after 76 characters; percent-encoded in
 * the ways that differ; as in JSON (also Go's, which escapes < > &), in XML, and in shell quotes.
 */
#ifndef WORKER_MASK_FORMS_H
#define WORKER_MASK_FORMS_H

#include <stddef.h>

#define MASK_FORMS_LINE 8 /* a shorter line of a secret is not hidden on its own */

/* mask_forms(s, n, add, arg): call ${add} with each form; some come twice.  Stops when it returns
 * -1.  0, or -1 with errno.  Scratch memory is wiped. */
int mask_forms(const char *s, size_t n, int (*add)(void *arg, const char *s, size_t n), void *arg);

#endif
