/* As many processors as a test wants: sched_getaffinity() in place of the C library's, which the
 * pool asks how many threads can run at once. To be included once, with _GNU_SOURCE defined. */
#include <sched.h>

static int processors; /* 0 for those there are */

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

int sched_getaffinity(pid_t process, size_t bytes, cpu_set_t *allowed) {
    CPU_ZERO_S(bytes, allowed);
    if (processors == 0)
        return syscall(SYS_sched_getaffinity, process, bytes, allowed) < 0 ? -1 : 0;
    for (int i = 0; i < processors; i++) CPU_SET_S((size_t)i, bytes, allowed);
    return 0;
}
#endif
