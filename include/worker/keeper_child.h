/* keeper_child.h -- the keeper's own side, after the fork.  Floor 3, for keeper.c alone.
 *
 * A message is an operation ('+' note, '-' forget, '.' clean end), a kind (enum keeper_kind) and
 * the text, in one packet.
 */
#ifndef WORKER_KEEPER_CHILD_H
#define WORKER_KEEPER_CHILD_H

#define KEEPER_CHILD_MESSAGE 4352 /* PATH_MAX and a little */

/* keeper_child_run(sock): the rest of the process's life. */
_Noreturn void keeper_child_run(int sock);

#endif
