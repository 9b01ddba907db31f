#!/usr/bin/env bash
# Lines and branches of src_c that the C tests reach: tests/c/coverage.sh FOLDER, from the root.
# Needs Clang and its llvm-profdata, and gcovr from PyPI.
#
# By Clang's counters of the source, not gcov's of the machine code: a template that is compiled for
# five tables, or a function that is inlined in ten places, counts once.
set -euo pipefail
folder=$1
mkdir -p "$folder/objects"
profdata=$(compgen -c llvm-profdata | sort -V | tail -n 1)
flags=(-std=c11 -O1 -ffp-contract=off -I src_c
    -fprofile-instr-generate -fcoverage-mapping -fprofile-update=atomic)
wrap=-Wl,--wrap=malloc,--wrap=calloc,--wrap=free,--wrap=pthread_create

printf '%s\n' src_c/kernels_*.c $(printf '%s\n' src_c/*.c | grep -v kernels_) |
    xargs -P 2 -I{} sh -c '"$@" -c {} -o "$0/objects/$(basename {} .c).o"' "$folder" clang "${flags[@]}"
binaries=() objects=()
for source in tests/c/test_*.c; do
    name=$(basename "$source" .c)
    case $name in
        test_faults) extra=$wrap arguments=() ;;
        test_activations) extra='' arguments=(scalar 65537) ;;
        test_golden) continue ;; # needs files of numbers, see test_c.py
        *) extra='' arguments=() ;;
    esac
    # shellcheck disable=SC2086  # no word, or one
    clang "${flags[@]}" "$source" "$folder"/objects/*.o $extra -lm -pthread -o "$folder/$name"
    LLVM_PROFILE_FILE=$folder/$name-%p.profraw "$folder/$name" "${arguments[@]}" | tail -n 1
    binaries+=(--llvm-cov-binary "$folder/$name")
    objects+=(-object "$folder/$name")
done
gcovr --root . --filter src_c/ --txt-metric branch --llvm-profdata-executable "$profdata" \
    "${binaries[@]}" "$folder"
# Lines and functions by llvm-cov itself: gcovr takes the brace that ends a function for a line that
# nothing reached.
"$profdata" merge -o "$folder/all.profdata" "$folder"/*.profraw
"${profdata/profdata/cov}" report -instr-profile "$folder/all.profdata" "${objects[@]:1}" src_c |
    awk '$1 == "TOTAL" {print "functions " $7 ", lines " $10}'
