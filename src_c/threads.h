/* A small pool of threads: one parallel region per call, never per step; and calls that are given
 * up. */
#ifndef FL_THREADS_H
#define FL_THREADS_H

#include <stddef.h>

#include "fastlstm.h"
#include "platform.h"

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
typedef volatile long fl_atomic;
static __forceinline long fl_atomic_load(const fl_atomic *a) {
    const long value = *a;
    _ReadWriteBarrier(); /* x86-64 keeps loads in order; arm64 needs a real fence */
#if defined(_M_ARM64)
    __dmb(_ARM64_BARRIER_ISH);
#endif
    return value;
}
static __forceinline void fl_atomic_store(fl_atomic *a, long value) {
    _InterlockedExchange(a, value);
}
static __forceinline long fl_atomic_add(fl_atomic *a, long value) { /* returns the value before */
    return _InterlockedExchangeAdd(a, value);
}
static __forceinline long fl_atomic_swap(fl_atomic *a, long value) { /* returns the value before */
    return _InterlockedExchange(a, value);
}
#else
typedef long fl_atomic;
static inline long fl_atomic_load(const fl_atomic *a) {
    return __atomic_load_n(a, __ATOMIC_ACQUIRE);
}
static inline void fl_atomic_store(fl_atomic *a, long value) {
    __atomic_store_n(a, value, __ATOMIC_RELEASE);
}
static inline long fl_atomic_add(fl_atomic *a, long value) { /* returns the value before */
    return __atomic_fetch_add(a, value, __ATOMIC_ACQ_REL);
}
static inline long fl_atomic_swap(fl_atomic *a, long value) { /* returns the value before */
    return __atomic_exchange_n(a, value, __ATOMIC_ACQ_REL);
}
#endif

enum { FL_MAX_THREADS = 64 };

/* A call that may be given up, as its threads see it. They stop one by one, each where it looks. */
typedef struct fl_stop {
    const fl_watch *watch;
    fl_fp_state caller; /* floating-point environment that the watch was made in, and is asked in */
    int threads;        /* of the pool's, those of the call, thread 0 included; 0 before */
    double work;        /* multiply-adds of thread 0 since it last asked */
    char padding[64];   /* away from what thread 0 writes */
    fl_atomic cancelled;
} fl_stop;

/* Of a call that begins, by the calling thread. */
static inline fl_stop fl_stop_begin(const fl_watch *watch) {
    fl_stop stop = {.watch = watch};
    if (watch == NULL) return stop; /* a short call, for which setting the environment takes long */
    stop.caller = fl_fp_enter();
    fl_fp_leave(stop.caller);
    return stop;
}

/* Asks the watch. By thread 0, the calling one. */
void fl_stop_ask(fl_stop *stop);

enum { FL_ASK_WORK = 1 << 22 /* multiply-adds, 0.1 ms or so */ };

/* Whether thread `index` is to give up; `work` is what it has in hand otherwise, in multiply-adds.
 * stop NULL: never. */
static inline int fl_stop_check(fl_stop *stop, int index, double work) {
    if (stop == NULL) return 0;
    if (index == 0 && (stop->work += work) >= FL_ASK_WORK) fl_stop_ask(stop);
    return fl_atomic_load(&stop->cancelled) != 0;
}

/* How many items, of so many multiply-adds each, to do between two looks by kernels of so many
 * lanes. Those of a product share its reading of the weights: there are some at least. */
ptrdiff_t fl_stop_slice(double work, ptrdiff_t lanes);

/* What it means that a thread comes to a barrier so late that the others have let others run. */
typedef enum fl_late {
    FL_LATE_IS_USUAL, /* Nothing: their shares are not alike. */
    FL_LATE_IS_TOLD,  /* It lost its processor: the calls to come have fewer threads. */
    FL_LATE_PARTS /* And so has this one: `size` is halved, and threads of an index from there on
                     must leave. */
} fl_late;

/* Where `size` threads of one call wait for each other. They spin: a step takes microseconds. All
 * zeros but size, late and stop when new; may be used again and again. fl_barrier_wait returns
 * whether the call is given up instead: then not all may have come, and none can count on the
 * others' work. */
typedef struct fl_barrier {
    fl_atomic arrived, generation;
    fl_atomic size;
    fl_atomic since; /* when one began to let others run, for the last to arrive */
    fl_late late;
    fl_stop *stop;    /* or NULL */
    char padding[64]; /* away from what others write */
} fl_barrier;
int fl_barrier_wait(fl_barrier *barrier);

/* Takes the pool for up to `wanted` threads, the calling one included. Returns how many there are:
 * 1 when another call has the pool, or no more threads can be made. fl_pool_release must follow. */
int fl_pool_take(int wanted);
void fl_pool_release(int taken);

/* Runs work(context, i) for i = 0..taken-1 at once, i = 0 on the calling thread, and returns when
 * all are done. taken is what fl_pool_take returned. stop: what the calling thread asks while it
 * waits for the others; or NULL. */
void fl_pool_run(int taken, void (*work)(void *context, int index), void *context, fl_stop *stop);

#endif
