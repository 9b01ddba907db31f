/* A run by the threads of a plan. */
#include "run_shared.h"

#include "kernels/kernels.h"
#include "memory.h"
#include "platform.h"

/* One run, as its threads see it. */
typedef struct shared_run {
    const fl_model *model;
    const fl_span *span;
    const fl_plan *plan;
    const fl_scratch *scratch;
    fl_barrier units[2], everyone; /* by units: one for each direction, one for all */
    fl_stop *stop;                 /* or NULL */
} shared_run;

fl_range fl_span_sequences(const fl_span *span, const fl_plan *plan, int index) {
    if (plan->sharing != FL_BY_ROWS) return (fl_range){0, span->B};
    return fl_ragged_part(span->ragged, span->T, span->B, index, plan->threads);
}

/* Thread `index` runs its sequences. */
static void run_rows(void *context, int index) {
    const shared_run *run = context;
    const size_t real = run->model->kernels->real_bytes;
    const fl_range rows = fl_span_sequences(run->span, run->plan, index);
    fl_span span = *run->span;
    span.B = rows.end - rows.first;
    if (span.B == 0) return;
    if (rows.first > 0) fl_span_move(&span, 0, rows.first, real);
    span.h += rows.first * run->model->output_size * (ptrdiff_t)real;
    span.c += rows.first * run->model->config.hidden_size * (ptrdiff_t)real;
    const fl_share share = fl_share_all(run->stop, index);
    const fl_fp_state saved = fl_fp_enter();
    fl_span_run(&span, run->model, &run->scratch[index], &share);
    fl_fp_leave(saved);
}

/* Thread `index` runs its direction or its units of one, in step with the others. */
static void run_units(void *context, int index) {
    shared_run *run = context;
    const int directions = run->plan->directions, d = index % directions;
    const fl_share share = {.index = index / directions,
                            .count = run->plan->threads / directions,
                            .direction = directions == 2 ? d : FL_ALL_DIRECTIONS,
                            .units = &run->units[d],
                            .everyone = &run->everyone,
                            .stop = run->stop,
                            .thread = index};
    const fl_fp_state saved = fl_fp_enter();
    fl_span_run(run->span, run->model, run->scratch, &share);
    fl_fp_leave(saved);
}

void fl_span_run_shared(const fl_span *span, const fl_model *model, const fl_scratch *scratch,
                        fl_plan *plan, fl_stop *stop) {
    if (plan->threads == 1 && plan->section >= span->T) { /* a tiny layer would feel the rest */
        const fl_share share = fl_share_all(stop, 0);
        const fl_fp_state saved = fl_fp_enter();
        fl_span_run(span, model, scratch, &share);
        fl_fp_leave(saved);
        return;
    }
    fl_span part;
    shared_run run = {.model = model, .span = &part, .plan = plan, .scratch = scratch};
    run.stop = run.units[0].stop = run.units[1].stop = run.everyone.stop = stop;
    run.units[0].late = run.units[1].late = FL_LATE_PARTS;
    run.everyone.late = FL_LATE_IS_TOLD;
    for (ptrdiff_t done = 0, n; done < span->T; done += n) {
        if (done > 0) fl_plan_renew(plan);
        n = fl_size_min(plan->section, span->T - done);
        part = *span;
        part.T = n;
        const ptrdiff_t first = model->config.reverse ? span->T - done - n : done;
        if (first > 0) fl_span_move(&part, first, 0, model->kernels->real_bytes);
        run.units[0].size = run.units[1].size = plan->threads / plan->directions;
        run.everyone.size = plan->threads;
        fl_pool_run(plan->threads, plan->sharing == FL_BY_UNITS ? run_units : run_rows, &run, stop);
        if (stop && stop->cancelled) return;
    }
}
