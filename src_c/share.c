/* How many threads a call is worth, and how they share it. */
#include "share.h"

#include <stdint.h>

#include "memory.h"
#include "threads.h"

/* Measured on virtual machines of 2 cores, Zen 4 and Intel Xeon, see docs/benchmarks.md. */
enum {
    THREAD_WORK = 1 << 21,    /* multiply-adds worth waking a thread for */
    STEP_WORK = 1 << 16,      /* multiply-adds of a step worth a barrier */
    STEP_BACK_WORK = 1 << 15, /* of a step back, for each thread */
    SEQUENCES_PER_THREAD = 4, /* that use a core's arithmetic about as well as many do */
    FAR_SEQUENCES = 12        /* that are worth reading all of a U from afar for, not a share */
};

/* Multiply-adds of a section, some tens of milliseconds: to wake threads, and to read W once more,
 * costs little then. */
static const double SECTION_WORK = 4294967296.0;

/* Multiply-adds of all layers and directions for one row, as a double since they may be many. */
static double work_of_row(const fl_work *work) {
    const fl_config *config = &work->model->config;
    const double H = (double)config->hidden_size, D = (double)config->num_directions;
    const double P = (double)work->model->output_size;
    const double first = (double)config->input_size + P, above = D * P + P;
    const double products = work->backward ? 2 : 1;
    return products * 4 * H * D * (first + ((double)config->num_layers - 1) * above);
}

/* A direction, or units of one, to each thread, unless sequences keep more of them busy. */
static fl_plan share_forward(const fl_work *work, int threads, double row) {
    const fl_model *model = work->model;
    const int directions = (int)model->config.num_directions;
    const double step = row * (double)work->B / (double)(model->config.num_layers * directions);
    ptrdiff_t per_direction = threads / directions;
    if (step < STEP_WORK || work->whole_rows) per_direction = 1;
    per_direction = fl_size_min(per_direction, model->panels + (model->narrow != NULL));
    const ptrdiff_t by_rows = fl_size_min(work->B, threads);
    const int by_units = directions * (int)per_direction;
    if (by_units >= by_rows && by_units > 1)
        return (fl_plan){.sharing = FL_BY_UNITS, .threads = by_units, .directions = directions};
    return (fl_plan){
        .sharing = by_rows > 1 ? FL_BY_ROWS : FL_BY_ONE, .threads = (int)by_rows, .directions = 1};
}

/* Directions one after the other; products after the steps are for all threads. */
static fl_plan share_backward(const fl_work *work, int threads) {
    const double H = (double)work->model->config.hidden_size, step = 4 * H * H * (double)work->B;
    const ptrdiff_t columns = 4 * work->model->kernels->lanes;
    const ptrdiff_t panels = work->model->config.hidden_size / columns;
    fl_plan plan = {
        .sharing = work->B > 1 ? FL_BY_ROWS : FL_BY_ONE, .threads = threads, .directions = 1};
    if (panels >= threads && step >= (double)threads * STEP_BACK_WORK && !work->whole_rows)
        plan.sharing = FL_BY_UNITS;
    return plan;
}

/* Sequences that keep a thread busy by themselves. Where U is larger than a core's own caches, that
 * takes more: with a share of the units, a thread has only that share of U to read at each step. */
static ptrdiff_t sequences_per_thread(const fl_model *model) {
    const ptrdiff_t row = model->z_row * (ptrdiff_t)model->kernels->real_bytes;
    return row * model->output_size > model->near_bytes ? FAR_SEQUENCES : SEQUENCES_PER_THREAD;
}

/* The plan with `most` threads at most. */
static fl_plan plan_of(const fl_work *work, int most) {
    const double row = work_of_row(work), all = row * work->rows;
    int threads = most;
    if (all < (double)threads * THREAD_WORK) threads = (int)(all / THREAD_WORK);
    if (threads <= 1) return (fl_plan){.sharing = FL_BY_ONE, .threads = 1, .directions = 1};
    if (work->B >= threads * sequences_per_thread(work->model))
        return (fl_plan){.sharing = FL_BY_ROWS, .threads = threads, .directions = 1};
    return work->backward ? share_backward(work, threads) : share_forward(work, threads, row);
}

fl_plan fl_plan_begin(const fl_work *work) {
    fl_plan plan = plan_of(work, fl_get_num_threads());
    const int wanted = plan.threads, taken = fl_pool_take(wanted);
    int by_units = plan.sharing == FL_BY_UNITS && plan.directions == 1 && !work->backward;
    if (taken < wanted) { /* the first was for more */
        plan = plan_of(work, taken);
        by_units = by_units && plan.sharing != FL_BY_ROWS;
    }
    const double steps = SECTION_WORK / (work_of_row(work) * (double)work->B);
    plan.section = !by_units ? PTRDIFF_MAX : steps > 1 ? (ptrdiff_t)steps : 1;
    plan.wanted = wanted;
    plan.taken = taken;
    return plan;
}

void fl_plan_end(const fl_plan *plan) { fl_pool_release(plan->taken); }

void fl_plan_renew(fl_plan *plan) {
    fl_pool_release(plan->taken);
    plan->taken = plan->threads = fl_pool_take(plan->wanted);
    plan->sharing = FL_BY_UNITS;
}
