/* A small pool of threads: one parallel region per call, never per step. */
#ifndef FL_THREADS_H
#define FL_THREADS_H

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
#endif

enum { FL_MAX_THREADS = 64 };

/* Where `size` threads of one call wait for each other. They spin: a step takes microseconds. All
 * zeros but the size when new; may be used again and again. */
typedef struct fl_barrier {
    fl_atomic arrived, generation;
    long size;
    char padding[64]; /* away from what others write */
} fl_barrier;
void fl_barrier_wait(fl_barrier *barrier);

/* Takes the pool for up to `wanted` threads, the calling one included. Returns how many there are:
 * 1 when another call has the pool, or no more threads can be made. fl_pool_release must follow. */
int fl_pool_take(int wanted);
void fl_pool_release(int taken);

/* Runs work(context, i) for i = 0..taken-1 at once, i = 0 on the calling thread, and returns when
 * all are done. taken is what fl_pool_take returned. */
void fl_pool_run(int taken, void (*work)(void *context, int index), void *context);

#endif
