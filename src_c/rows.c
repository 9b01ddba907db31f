/* Sequences of different lengths: checked, and shared out. */
#include "rows.h"

int fl_starts_check(const ptrdiff_t *starts, ptrdiff_t T, ptrdiff_t B) {
    if (starts == NULL) return 1;
    if (starts[0] != 0) return 0;
    for (ptrdiff_t t = 0, most = B; t < T; t++) {
        if (starts[t + 1] < starts[t] || starts[t + 1] - starts[t] > most) return 0;
        most = starts[t + 1] - starts[t];
    }
    return 1;
}

/* Where part `index` of `count` begins; index = count: where the last ends. */
static ptrdiff_t first_of_part(fl_ragged ragged, ptrdiff_t T, ptrdiff_t B, ptrdiff_t index,
                               ptrdiff_t count) {
    if (ragged.starts == NULL || index == count) /* B * index / count, without overflow */
        return B / count * index + B % count * index / count;
    ptrdiff_t low = 0, high = B; /* the fewest sequences that have the share of all before */
    while (low < high) {
        const ptrdiff_t middle = low + (high - low) / 2;
        double steps = 0;
        for (ptrdiff_t t = 0; t < T; t++) steps += (double)fl_ragged_count(ragged, t, middle);
        if (steps * (double)count >= (double)ragged.starts[T] * (double)index) high = middle;
        else low = middle + 1;
    }
    return low;
}

fl_range fl_ragged_part(fl_ragged ragged, ptrdiff_t T, ptrdiff_t B, ptrdiff_t index,
                        ptrdiff_t count) {
    return (fl_range){first_of_part(ragged, T, B, index, count),
                      first_of_part(ragged, T, B, index + 1, count)};
}
