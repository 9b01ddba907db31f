/* Scratch memory of a run: what it works on between input and output. */
#ifndef FL_SCRATCH_H
#define FL_SCRATCH_H

#include <stddef.h>

#include "fastlstm.h"
#include "model.h"
#include "quantized.h"

/* Scratch of one direction: z of a chunk of time (chunk, B, panels, G, V), or of those of two lanes
 * (side_by_side.h); without gaps where sequences have different lengths, whose inputs (input_rows,
 * I_l) it then has, too; and what a variant needs between its cells and the next step: h~ (B, H),
 * masked h (B, P); with layer normalisation c~ (B, H), U h (B, panels, G, V) and what is normalised
 * of some rows (FL_NORM_ROWS, 4*H); of a quantised model a room (quantized.h) for each of the
 * threads that share its units. */
typedef struct fl_direction_scratch {
    char *z, *inputs, *cells, *masked, *candidates, *recurrent, *normal, *rooms;
    ptrdiff_t input_rows, room_rows;
} fl_direction_scratch;

/* Scratch of a run. */
typedef struct fl_scratch {
    fl_direction_scratch directions[2]; /* the same memory where one runs at a time */
    char *between[2];                   /* (T or chunk, B, D*P): what layers hand on, by turns */
    char *last;                         /* (2, B, D*P): y of even and odd steps, if not wanted */
    ptrdiff_t chunk;                    /* steps */
    char *memory;                       /* all of it */
} fl_scratch;

/* Allocates scratch for runs of up to T >= 1 steps of up to B >= 1 sequences, the units of each
 * direction by up to `threads` threads; any number of runs, one after the other, may use it.
 * Nothing to free on error. */
fl_status fl_scratch_create(fl_scratch *made, const fl_model *model, ptrdiff_t T, ptrdiff_t B,
                            const ptrdiff_t *starts, int directions_at_once, int threads);
void fl_scratch_destroy(fl_scratch *scratch);

/* The room of the index-th thread that shares a direction's units; of none unless quantised. */
fl_room fl_scratch_room(const fl_model *model, const fl_direction_scratch *scratch,
                        ptrdiff_t index);

#endif
