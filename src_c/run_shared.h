/* A run (run.h) by the threads of a plan (share.h). */
#ifndef FL_RUN_SHARED_H
#define FL_RUN_SHARED_H

#include "model.h"
#include "rows.h"
#include "run.h"
#include "share.h"
#include "threads.h"

/* The sequences of a span that thread `index` runs. */
fl_range fl_span_sequences(const fl_span *span, const fl_plan *plan, int index);

/* fl_span_run() by all threads of a plan, each of which sets its floating-point environment.
 * scratch is, by rows, one for each thread and as many sequences as it has; else one, for all of
 * them. stop: NULL for a call that is not given up.
 * A long run goes section by section, see fl_plan_renew. */
void fl_span_run_shared(const fl_span *span, const fl_model *model, const fl_scratch *scratch,
                        fl_plan *plan, fl_stop *stop);

#endif
