/* How a call is shared out over threads, forward or backward.
 *
 * Which way is taken changes no bit: sequences and units do not meet in any sum but those over
 * rows, which are cut into blocks that depend on sizes alone.
 */
#ifndef FL_SHARE_H
#define FL_SHARE_H

#include <stddef.h>

#include "model.h"

typedef enum fl_sharing {
    FL_BY_ONE,  /* One thread takes all steps; of a backward pass, others help with the products
                   after them. For small calls. */
    FL_BY_ROWS, /* Each takes sequences and runs all steps of them: no barriers. For batches. */
    FL_BY_UNITS /* Each takes a direction, or units of one: its share of U stays in its own cache.
                   One spin barrier a step. For few sequences through a large layer. */
} fl_sharing;

/* What there is to share. */
typedef struct fl_work {
    const fl_model *model;
    ptrdiff_t B;
    double rows; /* (t, b), over all steps; with strides of 0, maybe more than ptrdiff_t holds */
    int backward;
    int stages;      /* of a step, after each of which its threads wait for each other; >= 1 */
    int one_scratch; /* whether sequences have no scratch of their own: only units are shared */
} fl_work;

/* How it is shared. */
typedef struct fl_plan {
    fl_sharing sharing;
    int threads;       /* the calling one included */
    int directions;    /* that run at once: 2 where a thread takes one of two, else 1 */
    int taken;         /* threads of the pool */
    ptrdiff_t section; /* steps, of a forward pass, after which comes fl_plan_renew */
    int wanted;        /* threads that it then asks for */
    int others;        /* calls of other threads beside this one */
    int is_noted;      /* whether they are told of this one */
} fl_plan;

/* Whether a call may be worth sharing at all. */
int fl_work_is_shareable(const fl_work *work);

/* Plans a call and takes the pool's threads for it, if there are any. fl_plan_end must follow. */
fl_plan fl_plan_begin(const fl_work *work);
void fl_plan_end(const fl_plan *plan);

/* The same of products of so many multiply-adds in all, whose rows are shared out. */
fl_plan fl_plan_products(double work);

/* The most threads that share a direction's units, whatever fl_plan_renew finds. */
static inline int fl_plan_sharers(const fl_plan *plan) {
    if (plan->sharing == FL_BY_ROWS) return 1;
    return (plan->wanted > plan->threads ? plan->wanted : plan->threads) / plan->directions;
}

/* Gives the threads back in the middle of a long call by units of one direction, and takes those
 * that there are now: then it has as many as suit, however the load on the processors changes. */
void fl_plan_renew(fl_plan *plan);

#endif
