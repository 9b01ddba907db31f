/* Tests of what the library says of the machine and takes from the environment, of the activations
 * over arrays, and of what the benchmark measures limits with. */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L /* setenv */
#endif
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "check.h"
#include "cpu/caches.h"
#include "fastlstm.h"
#include "probes.h"
#include "random.h"

/* What fl_get_num_threads says first in a process with this in its environment. */
static int threads_with(const char *text) {
    const pid_t child = fork();
    if (child == 0) {
        if (text) setenv("FASTLSTM_NUM_THREADS", text, 1);
        else unsetenv("FASTLSTM_NUM_THREADS");
        _exit(fl_get_num_threads());
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_threads(void) {
    const int usual = threads_with(NULL);
    CHECK(usual >= 1 && usual <= 64);
    CHECK(threads_with("1") == 1);
    CHECK(threads_with("7") == 7);
    CHECK(threads_with("64") == 64);
    static const char *const senseless[] = {"", "0", "-1", "65", "two", "2x", "1e1"};
    for (size_t i = 0; i < sizeof senseless / sizeof *senseless; i++)
        CHECK(threads_with(senseless[i]) == usual);
}

static void test_instruction_sets(void) {
    const char *asked = getenv("FASTLSTM_ISA");
    char *before = asked ? strdup(asked) : NULL;
    const int count = fl_isa_count();
    CHECK(count >= 1 && fl_isa_name(-1) == NULL && fl_isa_name(count) == NULL);
    for (int i = 0; i < count; i++) {
        CHECK(setenv("FASTLSTM_ISA", fl_isa_name(i), 1) == 0);
        CHECK(fl_isa_default() == fl_isa_name(i));
    }
    setenv("FASTLSTM_ISA", "", 1);
    CHECK(fl_isa_default() == fl_isa_name(0));
    unsetenv("FASTLSTM_ISA");
    CHECK(fl_isa_default() == fl_isa_name(0));
    static const char *const unknown[] = {"avx9", "AVX2", "scalar ", "sca"};
    const float parameters[24] = {0};
    const fl_config config = CONFIG(1, 1, 1, 1, 1, FL_FLOAT32);
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        fl_model *model = (fl_model *)&config;
        setenv("FASTLSTM_ISA", unknown[i], 1);
        CHECK(fl_isa_default() == NULL);
        CHECK(fl_model_create(&config, NULL, parameters, &model) == FL_ERROR_ISA && model == NULL);
        CHECK(fl_model_create(&config, unknown[i], parameters, &model) == FL_ERROR_ISA);
        CHECK(fl_model_create(&config, "scalar", parameters, &model) == FL_OK);
        CHECK(strcmp(fl_model_isa(model), "scalar") == 0 && fl_model_bytes(model) > 0);
        fl_model_destroy(model);
    }
    if (before) setenv("FASTLSTM_ISA", before, 1);
    else unsetenv("FASTLSTM_ISA");
    free(before);

    for (int level = -1; level <= 4; level++) {
        const size_t size = fl_cache_size(level);
        CHECK(size == 0 || (level >= 1 && level <= 3 && size >= 1024));
    }
    const size_t near_bytes = (size_t)fl_cache_near(), l2 = fl_cache_size(2);
    CHECK(near_bytes >= 16 * 1024 && (l2 == 0 || near_bytes <= l2));
    CHECK((size_t)fl_cache_near() == near_bytes);
    for (int status = FL_OK; status <= FL_ERROR_CANCELLED; status++)
        CHECK(strcmp(fl_status_message((fl_status)status), "unknown status") != 0);
    CHECK(strcmp(fl_status_message((fl_status)99), "unknown status") == 0);
    CHECK(strlen(fl_compiler()) > 3);
}

static double at(const void *values, fl_dtype dtype, ptrdiff_t j) {
    return dtype == FL_FLOAT64 ? ((const double *)values)[j] : ((const float *)values)[j];
}

/* Any length and any place, near libm's value; in place; and what is refused. */
static void test_activations(const char *isa, fl_dtype dtype) {
    enum { N = 70 };
    double x[N], y[N + 1], exact[N];
    const double tolerance = dtype == FL_FLOAT64 ? 1e-15 : 5e-7;
    for (ptrdiff_t n = 0; n <= N; n++) {
        for (ptrdiff_t j = 0; j < n; j++) {
            const double value = (double)(float)(6 * random_real());
            exact[j] = value;
            if (dtype == FL_FLOAT64) x[j] = value;
            else ((float *)x)[j] = (float)value;
        }
        memset(y, 0x55, sizeof y);
        CHECK(fl_probe_sigmoid(isa, dtype, n, x, y) == FL_OK);
        for (ptrdiff_t j = 0; j < n; j++)
            CHECK(fabs(at(y, dtype, j) - 1 / (1 + exp(-exact[j]))) < tolerance);
        const double untouched = at(y, dtype, n);
        memset(y, 0x55, sizeof y);
        CHECK(untouched == at(y, dtype, n));
        CHECK(fl_probe_tanh(isa, dtype, n, x, x) == FL_OK);
        for (ptrdiff_t j = 0; j < n; j++) CHECK(fabs(at(x, dtype, j) - tanh(exact[j])) < tolerance);
    }
    CHECK(fl_probe_sigmoid(isa, dtype, 0, NULL, NULL) == FL_OK);
    CHECK(fl_probe_sigmoid(isa, dtype, -1, x, y) == FL_ERROR_ARGUMENT);
    CHECK(fl_probe_sigmoid(isa, dtype, 1, NULL, y) == FL_ERROR_ARGUMENT);
    CHECK(fl_probe_tanh(isa, dtype, 1, x, NULL) == FL_ERROR_ARGUMENT);
    CHECK(fl_probe_sigmoid("none", dtype, 1, x, y) == FL_ERROR_ISA);
    CHECK(fl_probe_tanh("none", dtype, 1, x, y) == FL_ERROR_ISA);
    CHECK(fl_probe_tanh(isa, (fl_dtype)7, 1, x, y) == FL_ERROR_ISA);
}

static void test_limits(const char *isa, fl_dtype dtype) {
    enum { N = 1000 };
    static double x[N];
    const double real = dtype == FL_FLOAT64 ? 8 : 4, once = fl_probe_fma(isa, dtype, 1);
    CHECK(once >= 2 && fl_probe_fma(isa, dtype, 0) == 0 && fl_probe_fma(isa, dtype, 9) == 9 * once);
    const double read = fl_probe_read(isa, dtype, N, x, 3);
    CHECK(read <= 3 * N * real && read > 3 * (N - 8 * 16) * real);
    CHECK(fl_probe_read(isa, dtype, 7, x, 3) <= 3 * 7 * real);
    CHECK(fl_probe_fma("none", dtype, 1) == 0 && fl_probe_read("none", dtype, N, x, 1) == 0);
    CHECK(fl_probe_read(isa, dtype, N, NULL, 1) == 0);
}

int main(void) {
    test_threads();
    test_instruction_sets();
    for (int i = 0; i < fl_isa_count(); i++)
        for (int dtype = FL_FLOAT32; dtype <= FL_FLOAT64; dtype++) {
            test_activations(fl_isa_name(i), (fl_dtype)dtype);
            test_limits(fl_isa_name(i), (fl_dtype)dtype);
        }
    return checks_report();
}
