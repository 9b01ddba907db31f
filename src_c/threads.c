/* The pool. Its threads sleep between calls; a call wakes them once and they spin with it, and a
 * little longer, for the next call. One call at a time has the pool: others that come meanwhile run
 * on their own thread alone. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getaffinity */
#endif
#include "threads.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fastlstm.h"
#include "platform.h"

#if defined(_WIN32)
#include <windows.h>
typedef SRWLOCK mutex;
typedef CONDITION_VARIABLE condition;
#define MUTEX_NEW SRWLOCK_INIT
#define CONDITION_NEW CONDITION_VARIABLE_INIT
static void lock(mutex *m) { AcquireSRWLockExclusive(m); }
static int try_lock(mutex *m) { return TryAcquireSRWLockExclusive(m) != 0; }
static void unlock(mutex *m) { ReleaseSRWLockExclusive(m); }
static void wait_for(condition *c, mutex *m) { SleepConditionVariableSRW(c, m, INFINITE, 0); }
static void wake_all(condition *c) { WakeAllConditionVariable(c); }
static void yield(void) { SwitchToThread(); }
static int64_t microseconds(void) {
    LARGE_INTEGER now, second;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&second);
    return (int64_t)((double)now.QuadPart * 1e6 / (double)second.QuadPart);
}
#else
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
typedef pthread_mutex_t mutex;
typedef pthread_cond_t condition;
#define MUTEX_NEW PTHREAD_MUTEX_INITIALIZER
#define CONDITION_NEW PTHREAD_COND_INITIALIZER
static void lock(mutex *m) { pthread_mutex_lock(m); }
static int try_lock(mutex *m) { return pthread_mutex_trylock(m) == 0; }
static void unlock(mutex *m) { pthread_mutex_unlock(m); }
static void wait_for(condition *c, mutex *m) { pthread_cond_wait(c, m); }
static void wake_all(condition *c) { pthread_cond_broadcast(c); }
static void yield(void) { sched_yield(); }
static int64_t microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
#endif

static void pause_briefly(void) {
#if FL_X86
    _mm_pause();
#elif FL_ARM64 && !defined(_MSC_VER)
    __asm__ volatile("yield");
#endif
}

/* Whether this thread is in the call that has the pool, and whether that call lost the pool's
 * threads, as a forked child does. */
static FL_THREAD_LOCAL int has_pool, has_lost_pool;

/* Waiting, the first time with *i = 0: spins, then lets others run. With fewer processors than
 * threads, spinning alone would keep off the very thread that is waited for. Returns whether it
 * spun. */
static int spin(int *i) {
    enum { SPINS = 4096 };
    if (*i >= SPINS) {
        yield();
        return 0;
    }
    ++*i;
    pause_briefly();
    return 1;
}

void fl_stop_ask(fl_stop *stop) {
    stop->work = 0;
    if (fl_atomic_load(&stop->cancelled)) return; /* once is enough */
    const fl_fp_state inside = fl_fp_enter();
    fl_fp_leave(stop->caller);
    const int is_cancelled = stop->watch->is_cancelled(stop->watch->context);
    fl_fp_leave(inside);
    /* A call inside the watch may have no pool, and then loses none. */
    if (is_cancelled || (stop->threads > 1 && has_lost_pool)) fl_atomic_store(&stop->cancelled, 1);
}

ptrdiff_t fl_stop_slice(double work, ptrdiff_t lanes) {
    /* Multiply-adds, 20 to 30 ms with AVX-512. Shorter slices of large layers would read the
     * weights too often: with a quarter of these, H=2048 took 1.3 (B=64) to 1.6 (B=128) times as
     * long. */
    const ptrdiff_t most = lanes > 1 ? lanes << 27 : 1 << 24; /* fma() is slow */
    const ptrdiff_t least = lanes > 1 ? lanes << 3 : 1;
    const double items = (double)most / work;
    return items > (double)most ? most : items > (double)least ? (ptrdiff_t)items : least;
}

static struct {
    mutex owner; /* held by the call that has the pool */
    mutex state; /* guards what follows */
    condition job_ready;
    int threads;               /* made so far, the calling one not counted */
    long job;                  /* number of the current job; a thread does each job once */
    long born[FL_MAX_THREADS]; /* the job that was current when a thread was made */
#if defined(__linux__)
    pthread_t handles[FL_MAX_THREADS];
    cpu_set_t allowed; /* processors the threads were last told to use, but for `caller` */
    int placed;        /* threads that were told */
    int caller;        /* the processor of the call they were told of */
#endif
    int count; /* threads wanted for it, the calling one included */
    void (*work)(void *context, int index);
    void *context;
    fl_atomic posted; /* the job, for threads that are still awake */
    fl_atomic unfinished;
    /* Of calls between fl_pool_enter and fl_pool_leave: how many there are, how many others one
     * found at most, how many in a row found none; when the last ended, in microseconds, and how
     * many in a row came right after the one before. */
    fl_atomic running, others, alone, ended, streak;

    int64_t begun;          /* when the call that has the pool took it, by microseconds() */
    fl_atomic waited;       /* microseconds for which threads of the call waited for a late one */
    fl_atomic is_crowded;   /* whether that was too long */
    int most;               /* threads that a call may have, see fl_pool_release */
    int64_t changed, pause; /* when `most` last changed, and for how long at least */
    int is_settled;         /* whether a call has had so many threads since */
    int64_t well;           /* time of the calls since that had several threads */
} pool = {
    .owner = MUTEX_NEW, .state = MUTEX_NEW, .job_ready = CONDITION_NEW, .most = FL_MAX_THREADS};

/* Microseconds since a call took the pool, more than 0. */
static long elapsed(void) { return (long)(microseconds() - pool.begun) + 1; }

/* By the last to arrive, when others have waited for it so long that they yielded. Where others use
 * the processors, threads that go in step lose most of their time: whoever is taken off its
 * processor comes back milliseconds later. One thread has no one to wait for. So once a call has
 * waited for a quarter of its time, half of its threads leave it, if they can; and
 * fl_pool_release() sees to the calls after it. */
static void judge(fl_barrier *barrier) {
    enum { LEAST_WAIT = 1000 /* microseconds: less is a slow wake, and no turn of another's */ };
    const long now = elapsed(), since = fl_atomic_swap(&barrier->since, 0);
    const long waited = fl_atomic_add(&pool.waited, now - since) + now - since;
    if (waited < LEAST_WAIT || waited < now / 4) return;
    fl_atomic_store(&pool.waited, 0);
    fl_atomic_store(&pool.is_crowded, 1);
    if (barrier->late == FL_LATE_PARTS) fl_atomic_store(&barrier->size, barrier->size / 2);
}

int fl_barrier_wait(fl_barrier *barrier) {
    const fl_atomic *cancelled = barrier->stop ? &barrier->stop->cancelled : NULL;
    const long generation = fl_atomic_load(&barrier->generation);
    const long size = fl_atomic_load(&barrier->size); /* the last to come may halve it */
    if (fl_atomic_add(&barrier->arrived, 1) + 1 == size) {
        fl_atomic_store(&barrier->arrived, 0);
        if (size > 1 && barrier->late != FL_LATE_IS_USUAL && fl_atomic_load(&barrier->since) != 0)
            judge(barrier);
        fl_atomic_store(&barrier->generation, generation + 1);
        return 0;
    }
    int has_yielded = 0;
    for (int i = 0; fl_atomic_load(&barrier->generation) == generation;) {
        if (!spin(&i)) {
            if (!has_yielded) fl_atomic_store(&barrier->since, elapsed());
            has_yielded = 1;
            if (has_pool && barrier->stop) fl_stop_ask(barrier->stop); /* by the calling thread */
        }
        if (cancelled && fl_atomic_load(cancelled)) return 1;
    }
    /* The last to arrive may have gone on before it was stored. */
    if (has_yielded) fl_atomic_store(&barrier->since, 0);
    return 0;
}

/* Calls this close to each other find the pool's threads awake, since waking them takes as long:
 * microseconds. So many in a row make it likely that there is one more. So many that are alone make
 * it likely that nobody calls from other threads any more. */
enum { AWAKE = 50, STREAK = 8, FORGET = 64 };

/* Spins until there is another job than `done`, but not for long. A thread that is kept off its
 * processor meanwhile finds its time over. */
static void stay_awake(long done) {
    const int64_t since = microseconds();
    for (int i = 1; fl_atomic_load(&pool.posted) == done; i++) {
        pause_briefly();
        if (i % 32 == 0 && microseconds() - since > AWAKE) return;
    }
}

/* The life of pool thread `index` (from 1): sleep, work, stay awake, sleep. */
static void serve(int index) {
    long done = pool.born[index];
    for (;;) {
        for (int i = 0; !try_lock(&pool.state);) spin(&i); /* soon: there are others like this */
        while (pool.job == done || index >= pool.count) {
            done = pool.job;
            wait_for(&pool.job_ready, &pool.state);
        }
        done = pool.job;
        void (*const work)(void *, int) = pool.work;
        void *const context = pool.context;
        unlock(&pool.state);
        work(context, index);
        fl_atomic_add(&pool.unfinished, -1);
        stay_awake(done);
    }
}

fl_pool_use fl_pool_enter(void) {
    const long others = fl_atomic_add(&pool.running, 1);
    const unsigned long ended = (unsigned long)fl_atomic_load(&pool.ended);
    if (others > fl_atomic_load(&pool.others)) fl_atomic_store(&pool.others, others);
    if (others > 0) fl_atomic_store(&pool.alone, 0);
    else if (fl_atomic_add(&pool.alone, 1) == FORGET) fl_atomic_store(&pool.others, 0);
    if (others > 0 || (unsigned long)microseconds() - ended > AWAKE) /* a long may be short */
        fl_atomic_store(&pool.streak, 0);
    const long streak = fl_atomic_add(&pool.streak, 1);
    return (fl_pool_use){(int)fl_atomic_load(&pool.others), streak >= STREAK};
}

void fl_pool_leave(void) {
    fl_atomic_store(&pool.ended, (long)microseconds());
    fl_atomic_add(&pool.running, -1);
}

#if defined(_WIN32)
static DWORD WINAPI thread_main(void *index) {
    serve((int)(intptr_t)index);
    return 0;
}
static int start_thread(int index) {
    HANDLE thread = CreateThread(NULL, 0, thread_main, (void *)(intptr_t)index, 0, NULL);
    if (thread == NULL) return 0;
    CloseHandle(thread);
    return 1;
}
#else
static void *thread_main(void *index) {
    serve((int)(intptr_t)index);
    return NULL;
}

/* A forked child has the pool's memory but none of its threads: it begins anew. What forks in the
 * middle of a call that has the pool, in an fl_watch, has it still, and the call can't go on. */
static void reset_in_child(void) {
    if (!has_pool) pthread_mutex_init(&pool.owner, NULL);
    has_lost_pool = has_pool;
    pthread_mutex_init(&pool.state, NULL);
    pthread_cond_init(&pool.job_ready, NULL);
    pool.threads = 0;
    pool.count = 0;
    fl_atomic_store(&pool.unfinished, 0);
    fl_atomic_store(&pool.running, has_pool);
    fl_atomic_store(&pool.others, 0);
#if defined(__linux__)
    pool.placed = 0;
#endif
}

static int start_thread(int index) {
    static int prepared_for_fork;
    if (!prepared_for_fork) {
        if (pthread_atfork(NULL, NULL, reset_in_child) != 0) return 0;
        prepared_for_fork = 1;
    }
    /* Signals belong to the threads of the program. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const int failed = pthread_create(&thread, NULL, thread_main, (void *)(intptr_t)index);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) return 0;
    pthread_detach(thread);
#if defined(__linux__)
    pool.handles[index] = thread;
#endif
    return 1;
}
#endif

#if defined(__linux__)
/* Processors that the calling thread may use; 1 when the system does not say. */
static int allowed_processors(cpu_set_t *allowed) {
    if (sched_getaffinity(0, sizeof *allowed, allowed) != 0) CPU_ZERO(allowed);
    return CPU_COUNT(allowed) > 0 ? CPU_COUNT(allowed) : 1;
}

/* Keeps the pool's threads off the processor of the call they work for. Left alone, a thread is
 * often woken right there, and then waits for the very thread that spins for it. */
static void place_threads(void) {
    cpu_set_t allowed;
    const int caller = sched_getcpu();
    if (allowed_processors(&allowed) < 2 || caller < 0 || !CPU_ISSET(caller, &allowed)) return;
    if (pool.placed == pool.threads && pool.caller == caller && CPU_EQUAL(&pool.allowed, &allowed))
        return;
    pool.allowed = allowed;
    pool.caller = caller;
    pool.placed = pool.threads;
    CPU_CLR(caller, &allowed);
    for (int i = 1; i <= pool.threads; i++)
        pthread_setaffinity_np(pool.handles[i], sizeof allowed, &allowed);
}
#else
static void place_threads(void) {}
#endif

/* How many threads this process may use at once. */
static int processors(void) {
    int count = 1;
#if defined(_WIN32)
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    count = (int)info.dwNumberOfProcessors;
#elif defined(__linux__)
    cpu_set_t allowed;
    count = allowed_processors(&allowed);
    /* A container's share of the machine: "quota period" in microseconds, or "max period". */
    long quota, period;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (file != NULL) {
        if (fscanf(file, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0) {
            const long share = (quota + period - 1) / period;
            if (share < count) count = (int)share;
        }
        fclose(file);
    }
#elif defined(_SC_NPROCESSORS_ONLN)
    count = (int)sysconf(_SC_NPROCESSORS_ONLN);
#endif
    return count < 1 ? 1 : count > FL_MAX_THREADS ? FL_MAX_THREADS : count;
}

/* A call that found its processors taken halves the number of threads that the calls after it may
 * have; after a pause that number doubles again. The pause grows, too, unless calls with so many
 * threads went well for longer than they do under load: then it was a moment's. The first call with
 * more threads does not count: they have slept, and their caches are cold. Microseconds. */
enum { LEAST_PAUSE = 2000, MOST_PAUSE = 1000000, GROWTH = 4, WELL = 200000 };

/* How many of `wanted` threads a call may have. By the owner. */
static int affordable(int wanted) {
    if (wanted <= pool.most) return wanted;
    const int64_t now = microseconds();
    if (now - pool.changed >= pool.pause) {
        pool.most *= 2;
        pool.changed = now;
        pool.is_settled = 0;
    }
    return wanted < pool.most ? wanted : pool.most;
}

/* After a call with several threads. By the owner. */
static void look_back(int taken) {
    const int64_t now = microseconds();
    const int counts = pool.is_settled;
    pool.is_settled = 1;
    if (!fl_atomic_swap(&pool.is_crowded, 0) || !counts) {
        pool.well += now - pool.begun;
        return;
    }
    pool.pause = pool.well > WELL ? 0 : GROWTH * pool.pause;
    if (pool.pause < LEAST_PAUSE) pool.pause = LEAST_PAUSE;
    if (pool.pause > MOST_PAUSE) pool.pause = MOST_PAUSE;
    pool.well = 0;
    pool.most = taken / 2;
    pool.changed = now;
}

int fl_pool_take(int wanted, int others) {
    if (wanted > FL_MAX_THREADS) wanted = FL_MAX_THREADS;
#if defined(__linux__)
    /* More threads than processors would wait for each other at every barrier. */
    cpu_set_t allowed;
    const int most = wanted > 1 ? allowed_processors(&allowed) - others : 1;
    if (wanted > most) wanted = most;
#else
    const int most = wanted > 1 ? processors() - others : 1;
    if (wanted > most) wanted = most;
#endif
    if (wanted <= 1 || !try_lock(&pool.owner)) return 1;
    wanted = affordable(wanted);
    while (pool.threads < wanted - 1) {
        pool.born[pool.threads + 1] = pool.job;
        if (!start_thread(pool.threads + 1)) break;
        pool.threads++;
    }
    if (pool.threads + 1 < wanted) wanted = pool.threads + 1;
    if (wanted <= 1) {
        unlock(&pool.owner);
        return 1;
    }
    has_pool = 1;
    pool.begun = microseconds();
    fl_atomic_store(&pool.waited, 0);
    return wanted;
}

void fl_pool_release(int taken) {
    if (taken <= 1) return;
    look_back(taken);
    has_pool = has_lost_pool = 0;
    unlock(&pool.owner);
}

void fl_pool_run(int taken, void (*work)(void *context, int index), void *context, fl_stop *stop) {
    if (stop) stop->threads = taken;
    if (taken > 1) {
        place_threads();
        lock(&pool.state);
        pool.job++;
        pool.count = taken;
        pool.work = work;
        pool.context = context;
        fl_atomic_store(&pool.unfinished, taken - 1);
        wake_all(&pool.job_ready);
        unlock(&pool.state);
        fl_atomic_store(&pool.posted, pool.job);
    }
    work(context, 0);
    if (taken > 1)
        for (int i = 0; fl_atomic_load(&pool.unfinished) != 0;)
            if (!spin(&i) && stop) fl_stop_ask(stop);
}

/* 0: not yet decided. */
static fl_atomic num_threads;

/* These two are exported: threadpoolctl recognises the library by them. */
FL_EXPORT int fl_get_num_threads(void) {
    long count = fl_atomic_load(&num_threads);
    if (count == 0) {
        const char *asked = getenv("FASTLSTM_NUM_THREADS");
        char *end = NULL;
        count = asked != NULL && *asked != '\0' ? strtol(asked, &end, 10) : 0;
        if (count < 1 || count > FL_MAX_THREADS || *end != '\0') count = processors();
        fl_atomic_store(&num_threads, count);
    }
    return (int)count;
}

FL_EXPORT fl_status fl_set_num_threads(int count) {
    if (count < 1 || count > FL_MAX_THREADS) return FL_ERROR_ARGUMENT;
    fl_atomic_store(&num_threads, count);
    return FL_OK;
}
