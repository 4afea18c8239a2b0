#include "parallel.h"

#include <pthread.h>
#include <stdatomic.h>

#include "glauber/core.h"

enum { MAX_THREADS = 256 };

enum gate { GATE_CLOSED, GATE_OPEN, GATE_ABORT };

/* Colours of a small model take less time than falling asleep, so a thread looks this often before it does. */
enum { LOOKS = 4000 };

struct glb_team {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n_threads;
    int asleep; /* in the barrier, under the lock */
    atomic_int arrived;
    atomic_uint round;
    enum gate gate;
    void (*work)(void *argument, glb_team *team, int thread);
    void *argument;
};

struct member {
    glb_team *team;
    int thread;
};

static void relax(void) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
    __builtin_ia32_pause();
#endif
}

void glb_barrier(glb_team *team) {
    if (team->n_threads == 1) {
        return;
    }
    unsigned round = atomic_load(&team->round);
    if (atomic_fetch_add(&team->arrived, 1) + 1 == team->n_threads) {
        atomic_store(&team->arrived, 0); /* before the others may come again */
        pthread_mutex_lock(&team->lock);
        atomic_store(&team->round, round + 1);
        if (team->asleep > 0) {
            pthread_cond_broadcast(&team->changed);
        }
        pthread_mutex_unlock(&team->lock);
        return;
    }
    for (int look = 0; look < LOOKS; look++) {
        if (atomic_load(&team->round) != round) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&team->lock);
    team->asleep++;
    while (atomic_load(&team->round) == round) {
        pthread_cond_wait(&team->changed, &team->lock);
    }
    team->asleep--;
    pthread_mutex_unlock(&team->lock);
}

static void *run_member(void *pointer) {
    struct member *member = pointer;
    glb_team *team = member->team;
    pthread_mutex_lock(&team->lock);
    while (team->gate == GATE_CLOSED) {
        pthread_cond_wait(&team->changed, &team->lock);
    }
    enum gate gate = team->gate;
    pthread_mutex_unlock(&team->lock);
    if (gate == GATE_OPEN) {
        team->work(team->argument, team, member->thread);
    }
    return NULL;
}

int glb_parallel(int n_threads, void (*work)(void *argument, glb_team *team, int thread), void *argument) {
    pthread_t threads[MAX_THREADS];
    struct member members[MAX_THREADS];
    glb_team team = {.n_threads = n_threads, .gate = GATE_CLOSED, .work = work, .argument = argument};
    if (n_threads < 1 || n_threads > MAX_THREADS) {
        return GLB_E_THREAD;
    }
    if (n_threads == 1) {
        work(argument, &team, 0);
        return GLB_OK;
    }
    if (pthread_mutex_init(&team.lock, NULL) != 0) {
        return GLB_E_THREAD;
    }
    if (pthread_cond_init(&team.changed, NULL) != 0) {
        pthread_mutex_destroy(&team.lock);
        return GLB_E_THREAD;
    }
    int started = 1;
    while (started < n_threads) {
        members[started] = (struct member){.team = &team, .thread = started};
        if (pthread_create(&threads[started], NULL, run_member, &members[started]) != 0) {
            break;
        }
        started++;
    }
    pthread_mutex_lock(&team.lock);
    team.gate = started == n_threads ? GATE_OPEN : GATE_ABORT;
    pthread_cond_broadcast(&team.changed);
    pthread_mutex_unlock(&team.lock);
    if (started == n_threads) {
        work(argument, &team, 0);
    }
    for (int t = 1; t < started; t++) {
        pthread_join(threads[t], NULL);
    }
    pthread_cond_destroy(&team.changed);
    pthread_mutex_destroy(&team.lock);
    return started == n_threads ? GLB_OK : GLB_E_THREAD;
}
