/* As many processors as a test wants: sched_getaffinity() in place of the C library's, which the
 * pool asks how many threads can run at once. To be included once, with _GNU_SOURCE defined. */
#include <sched.h>

static int processors = 5;

#if defined(__linux__)
int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *allowed) {
    (void)process;
    (void)bytes;
    CPU_ZERO(allowed);
    for (int i = 0; i < processors; i++) CPU_SET(i, allowed);
    return 0;
}
#endif
