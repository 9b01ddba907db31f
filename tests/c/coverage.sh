#!/usr/bin/env bash
# Lines, branches and public functions of src_c that the C tests reach: tests/c/coverage.sh FOLDER, from the root.
# Needs Clang and its llvm-profdata, and gcovr from PyPI.
#
# By Clang's counters of the source, not gcov's of the machine code: a template that is compiled for
# five tables, or a function that is inlined in ten places, counts once. Counters are atomic, or one
# branch's count, which is the difference of two, could be wrong: kernels on two threads then take
# twenty times as long, so that the programs of threads count what is above the kernels alone.
set -euo pipefail
folder=$1
mkdir -p "$folder/objects" "$folder/plain"
profdata=$(compgen -c llvm-profdata | sort -V | tail -n 1)
mapfile -t plain <src_c/flags_unix.txt
plain+=(-O1 -I src_c)
flags=("${plain[@]}" -fprofile-instr-generate -fcoverage-mapping -fprofile-update=atomic)
wrap=-Wl,--wrap=malloc,--wrap=calloc,--wrap=free,--wrap=pthread_create

compile() {
    xargs -P 2 -I{} sh -c '"$@" -c src_c/{} -o "$0/$(basename {} .c).o"' "$@"
}
compile "$folder/objects" clang "${flags[@]}" <src_c/sources.txt
grep ^kernels/ src_c/sources.txt | compile "$folder/plain" clang "${plain[@]}"
binaries=() objects=()
for source in tests/c/test_*.c; do
    name=$(basename "$source" .c)
    kernels=("$folder"/objects/kernels_*.o)
    case $name in
        test_threads) extra='' arguments=() kernels=("$folder"/plain/kernels_*.o) ;;
        test_faults) extra=$wrap arguments=() kernels=("$folder"/plain/kernels_*.o) ;;
        test_activations) extra='' arguments=(scalar 65537) ;;
        test_golden) continue ;; # needs files of numbers, see test_c.py
        *) extra='' arguments=() ;;
    esac
    # shellcheck disable=SC2086  # no word, or one
    clang "${flags[@]}" "$source" "$folder"/objects/[!k]*.o "${kernels[@]}" $extra -lm -pthread -o "$folder/$name"
    LLVM_PROFILE_FILE=$folder/$name-%p.profraw "$folder/$name" "${arguments[@]}" | tail -n 1
    binaries+=(--llvm-cov-binary "$folder/$name")
    objects+=(-object "$folder/$name")
done
gcovr --root . --filter src_c/ --txt-metric branch --llvm-profdata-executable "$profdata" \
    "${binaries[@]}" "$folder"
# Lines by llvm-cov itself: gcovr takes the brace that ends a function for a line that nothing reached.
"$profdata" merge -o "$folder/all.profdata" "$folder"/*.profraw
report() {
    "${profdata/profdata/cov}" report "$@" -instr-profile "$folder/all.profdata" "${objects[@]:1}" src_c
}
report | awk '$1 == "TOTAL" {print "lines " $10}'
report -show-functions 2>/dev/null >"$folder/functions"
grep -oE '\bfl_[a-z_]+\(' src_c/fastlstm.h | tr -d '(' | sort -u | while read -r name; do
    awk -v name="$name" '$1 == name && $2 > $3 {reached = 1} END {exit !reached}' "$folder/functions" ||
        echo "no test reaches $name"
done
