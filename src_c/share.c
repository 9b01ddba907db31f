/* How many threads a call is worth, and how they share it. */
#include "share.h"

#include <stdint.h>

#include "memory.h"
#include "threads.h"

/* Measured on virtual machines of 2 cores, Zen 4 and Intel Xeon: docs/reference/benchmarks.md. */
enum {
    THREAD_WORK = 1 << 21,    /* multiply-adds worth waking a thread for */
    READY_WORK = 3 << 15,     /* worth one that is awake */
    FAR_ROWS = 4,             /* rows multiplied while weights come from beyond a core's caches */
    STEP_WORK = 1 << 16,      /* multiply-adds of a step worth a barrier */
    STEP_BACK_WORK = 1 << 15, /* of a step back, for each thread */
    SEQUENCES_PER_THREAD = 4, /* that use a core's arithmetic about as well as many do */
    FAR_SEQUENCES = 12        /* that are worth reading all of a U from afar for, not a share */
};

/* Multiply-adds of a section, some tens of milliseconds: to wake threads, and to read W once more,
 * costs little then. */
static const double SECTION_WORK = 4294967296.0;

/* What a multiply-add takes beside one of reals. */
static double cost_of(const fl_model *model) {
    switch (model->config.bits) {
        case 8: return 0.25;
        case 16: return 0.75;
        case 24: return 1.5;
        default: return 1;
    }
}

/* Multiply-adds of all layers and directions for one row, as a double since they may be many. */
static double work_of_row(const fl_work *work) {
    const fl_config *config = &work->model->config;
    const double H = (double)config->hidden_size, D = (double)config->num_directions;
    const double P = (double)work->model->output_size;
    const double first = (double)config->input_size + P, above = D * P + P;
    const double products = work->backward ? 2 : cost_of(work->model);
    return products * 4 * H * D * (first + ((double)config->num_layers - 1) * above);
}

/* Multiply-adds of a call, or as many as take as long as its weights do to come. */
static double work_of_all(const fl_work *work, double row) {
    const double rows_of_step = (double)work->B < FAR_ROWS ? (double)work->B : FAR_ROWS;
    const double far = fl_model_is_far(work->model) ? FAR_ROWS / rows_of_step : 1;
    return row * work->rows * far;
}

/* A direction, or units of one, to each thread, unless sequences keep more of them busy. */
static fl_plan share_forward(const fl_work *work, int threads, double row) {
    const fl_model *model = work->model;
    const int directions = (int)model->config.num_directions;
    const double step = row * (double)work->B / (double)(model->config.num_layers * directions);
    ptrdiff_t per_direction = threads / directions;
    if (step < (double)work->stages * STEP_WORK) per_direction = 1;
    per_direction = fl_size_min(per_direction, model->panels + (model->narrow != NULL));
    const ptrdiff_t by_rows = work->one_scratch ? 1 : fl_size_min(work->B, threads);
    const int by_units = directions * (int)per_direction;
    if (by_units >= by_rows && by_units > 1)
        return (fl_plan){.sharing = FL_BY_UNITS, .threads = by_units, .directions = directions};
    return (fl_plan){
        .sharing = by_rows > 1 ? FL_BY_ROWS : FL_BY_ONE, .threads = (int)by_rows, .directions = 1};
}

/* Directions one after the other; products after the steps are for all threads. */
static fl_plan share_backward(const fl_work *work, int threads) {
    const double H = (double)work->model->config.hidden_size, P = (double)work->model->output_size;
    const double step = 4 * H * P * (double)work->B, stages = (double)work->stages;
    const ptrdiff_t columns = 4 * work->model->kernels->lanes;
    const ptrdiff_t panels = work->model->output_size / columns;
    fl_plan plan = {
        .sharing = work->B > 1 ? FL_BY_ROWS : FL_BY_ONE, .threads = threads, .directions = 1};
    if (panels >= threads && step >= stages * (double)threads * STEP_BACK_WORK)
        plan.sharing = FL_BY_UNITS;
    return plan;
}

/* Sequences that keep a thread busy by themselves. Where U is larger than a core's own caches, that
 * takes more: with a share of the units, a thread has only that share of U to read at each step. */
static ptrdiff_t sequences_per_thread(const fl_model *model) {
    const ptrdiff_t u_bytes = fl_model_matrix_bytes(model, model->output_size);
    return u_bytes > model->near_bytes ? FAR_SEQUENCES : SEQUENCES_PER_THREAD;
}

/* The plan with `most` threads at most, each of which has as many multiply-adds as it is worth. */
static fl_plan plan_of(const fl_work *work, double all, int most, double worth) {
    int threads = most;
    if (all < (double)threads * worth) threads = (int)(all / worth);
    if (threads <= 1) return (fl_plan){.sharing = FL_BY_ONE, .threads = 1, .directions = 1};
    if (work->B >= threads * sequences_per_thread(work->model) && !work->one_scratch)
        return (fl_plan){.sharing = FL_BY_ROWS, .threads = threads, .directions = 1};
    return work->backward ? share_backward(work, threads)
                          : share_forward(work, threads, work_of_row(work));
}

int fl_work_is_shareable(const fl_work *work) {
    return work_of_all(work, work_of_row(work)) >= 2 * READY_WORK;
}

fl_plan fl_plan_begin(const fl_work *work) {
    const int most = fl_get_num_threads();
    const double all = work_of_all(work, work_of_row(work));
    if (most < 2 || all < 2 * READY_WORK)
        return (fl_plan){.threads = 1, .directions = 1, .section = PTRDIFF_MAX};
    const fl_pool_use use = fl_pool_enter();
    const double worth = use.is_ready ? READY_WORK : THREAD_WORK;
    fl_plan plan = plan_of(work, all, most, worth);
    const int wanted = plan.threads, taken = fl_pool_take(wanted, use.others);
    int by_units = plan.sharing == FL_BY_UNITS && plan.directions == 1 && !work->backward;
    if (taken < wanted) { /* the first was for more */
        plan = plan_of(work, all, taken, worth);
        by_units = by_units && plan.sharing != FL_BY_ROWS;
    }
    const double steps = SECTION_WORK / (work_of_row(work) * (double)work->B);
    plan.section = !by_units ? PTRDIFF_MAX : steps > 1 ? (ptrdiff_t)steps : 1;
    plan.wanted = wanted;
    plan.others = use.others;
    plan.taken = taken;
    plan.is_noted = 1;
    return plan;
}

fl_plan fl_plan_products(double work) {
    const int most = fl_get_num_threads();
    if (most < 2 || work < 2 * READY_WORK) return (fl_plan){.threads = 1};
    const fl_pool_use use = fl_pool_enter();
    const double worth = use.is_ready ? READY_WORK : THREAD_WORK;
    const int wanted = work < most * worth ? (int)(work / worth) : most;
    const int taken = fl_pool_take(wanted > 1 ? wanted : 1, use.others);
    return (fl_plan){.threads = taken, .taken = taken, .is_noted = 1};
}

void fl_plan_end(const fl_plan *plan) {
    fl_pool_release(plan->taken);
    if (plan->is_noted) fl_pool_leave();
}

void fl_plan_renew(fl_plan *plan) {
    fl_pool_release(plan->taken);
    plan->taken = plan->threads = fl_pool_take(plan->wanted, plan->others);
    plan->sharing = FL_BY_UNITS;
}
