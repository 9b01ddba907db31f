/* A test harness of one macro: CHECK counts, prints what failed, and goes on. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>

static _Atomic long checks_passed, checks_failed; /* tests of threads check in all of them */

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (condition) {                                                                \
            checks_passed++;                                                            \
        } else {                                                                        \
            checks_failed++;                                                            \
            if (checks_failed <= 20)                                                    \
                fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                               \
    } while (0)

/* Prints the count and returns the exit code of main. */
static int checks_report(void) {
    printf("%ld checks passed, %ld failed\n", checks_passed, checks_failed);
    return checks_failed != 0;
}

#endif
