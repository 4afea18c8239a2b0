/* Threads for the length of one call, with a barrier. */
#ifndef GLAUBER_PARALLEL_H
#define GLAUBER_PARALLEL_H

typedef struct glb_team glb_team;

/* Every thread of the team waits here for the others. */
void glb_barrier(glb_team *team);

/* Calls work(argument, team, thread) for thread 0 .. n_threads - 1, thread 0 on the caller's own. Nothing runs when a
 * thread cannot be started: returns GLB_E_THREAD then, else GLB_OK. */
int glb_parallel(int n_threads, void (*work)(void *argument, glb_team *team, int thread), void *argument);

#endif
