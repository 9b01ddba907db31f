/* Makes what the compiled core asks of the system fail: to be preloaded, see test_faults.py.
 *
 * Calls count as the core's when they return into the mapping that fault_watch was told of; those
 * of Python and NumPy pass. fault_* are called by ctypes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MOST_BLOCKS = 512 };

static uintptr_t core_start, core_end;
static void *blocks[MOST_BLOCKS]; /* of the core, in use; NULL where there is none */
static int used;                  /* blocks[used] and above have never been any */
static atomic_int live;
static atomic_flag guard = ATOMIC_FLAG_INIT; /* of blocks */
static int overflowed;

static atomic_int allocation_to_fail;  /* counted down; 0 and below: none */
static atomic_int startable = 1 << 30; /* threads that the core may start yet */
static atomic_int claimed_processors;

void fault_watch(uintptr_t start, uintptr_t end) {
    core_start = start;
    core_end = end;
}

/* The n-th allocation from now fails; 0 for none. */
void fault_fail_allocation(int n) { allocation_to_fail = n; }

/* Whether it has; asked before the next one is set. */
int fault_has_failed_allocation(void) { return allocation_to_fail < 0; }

/* From now, so many threads can be started and no more. */
void fault_allow_threads(int count) { startable = count; }

/* As if the process might use so many processors. */
void fault_claim_processors(int count) { claimed_processors = count; }

/* Blocks that the core has allocated and not freed; -1 if there were too many to count. */
int fault_live_blocks(void) { return overflowed ? -1 : live; }

static int is_core(const void *caller) {
    return (uintptr_t)caller - core_start < core_end - core_start;
}

/* Counts down; whether this is the allocation. From 1 it goes to -1: it has failed, once. */
static int is_due(void) {
    int n = allocation_to_fail;
    while (n > 0)
        if (atomic_compare_exchange_weak(&allocation_to_fail, &n, n == 1 ? -1 : n - 1))
            return n == 1;
    return 0;
}

static void enter(void) {
    while (atomic_flag_test_and_set(&guard)) sched_yield();
}

static void *noted(void *block) {
    if (block == NULL) return NULL;
    enter();
    int i = 0;
    while (i < used && blocks[i] != NULL) i++;
    if (i == MOST_BLOCKS) overflowed = 1;
    else blocks[i] = block;
    if (i == used && used < MOST_BLOCKS) used++;
    live++;
    atomic_flag_clear(&guard);
    return block;
}

/* Blocks go by their address: a free that is the last thing a function does has its caller. */
static void forget(const void *block) {
    if (block == NULL || live == 0) return;
    enter();
    for (int i = 0; i < used; i++) {
        if (blocks[i] != block) continue;
        blocks[i] = NULL;
        live--;
        break;
    }
    atomic_flag_clear(&guard);
}

/* dlsym allocates itself, before there is anything to allocate with. */
static _Alignas(max_align_t) char early[4096];
static size_t early_used;

static void *allocate_early(size_t bytes) {
    const size_t rounded =
        (bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    if (rounded > sizeof early - early_used) return NULL;
    early_used += rounded;
    return early + early_used - rounded;
}

static int is_early(const void *block) {
    return (uintptr_t)block - (uintptr_t)early < sizeof early;
}

static struct {
    void *(*malloc)(size_t);
    void *(*calloc)(size_t, size_t);
    void (*free)(void *);
    int (*pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    int (*sched_getaffinity)(pid_t, size_t, cpu_set_t *);
} next;

/* next.NAME, found at the first call. NULL while it is being looked for. ISO C has no way from an
 * object's address to a function's: hence memcpy. */
#define FIND(NAME)                                       \
    do {                                                 \
        static int is_looking;                           \
        if (next.NAME == NULL && !is_looking) {          \
            is_looking = 1;                              \
            void *const found = dlsym(RTLD_NEXT, #NAME); \
            memcpy(&next.NAME, &found, sizeof found);    \
        }                                                \
    } while (0)

void *malloc(size_t bytes) {
    FIND(malloc);
    if (next.malloc == NULL) return allocate_early(bytes);
    if (!is_core(__builtin_return_address(0))) return next.malloc(bytes);
    if (!is_due()) return noted(next.malloc(bytes));
    errno = ENOMEM;
    return NULL;
}

void *calloc(size_t count, size_t size) {
    FIND(calloc);
    if (next.calloc == NULL) return allocate_early(count * size); /* of dlsym: small, still zero */
    if (!is_core(__builtin_return_address(0))) return next.calloc(count, size);
    if (!is_due()) return noted(next.calloc(count, size));
    errno = ENOMEM;
    return NULL;
}

void free(void *block) {
    FIND(free);
    if (is_early(block) || next.free == NULL) return;
    forget(block);
    next.free(block);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *argument) {
    FIND(pthread_create);
    if (is_core(__builtin_return_address(0)) && atomic_fetch_sub(&startable, 1) <= 0) return EAGAIN;
    return next.pthread_create(thread, attributes, start, argument);
}

int sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *allowed) {
    FIND(sched_getaffinity);
    const int status = next.sched_getaffinity(pid, bytes, allowed);
    if (status == 0 && is_core(__builtin_return_address(0)))
        for (int i = 0; CPU_COUNT_S(bytes, allowed) < claimed_processors; i++)
            CPU_SET_S((size_t)i, bytes, allowed);
    return status;
}
