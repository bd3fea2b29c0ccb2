#!/usr/bin/env bash
# Measure every committed CPU figure but those of larger bundles, within about 22 minutes on two idle cores without the
# peers (PEERS=0), and some 15 more with them:
#
#   bash bench/cpu_sweep.sh FOLDER [--small]        writes the results to FOLDER; bench/results holds the committed ones
#   AUDIO=../shared/ravdess  NAME=epyc-2core        the recordings, and the machine's name in file names: that of the
#                                                   committed results replaces them, any other is added to them
#   PEERS=0                                         leaves out the peers, the last and longest part
#   OPTIMUM=ENV/bin/python                          compares optimum's export, too (docs/benchmarks.md shows how to make ENV)
#
# FOLDER and AUDIO are relative to the checkout. A part that fails or takes too long is named at the end, and the others
# go on; --small only shows that all of them run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
out=${1:?usage: cpu_sweep.sh FOLDER [--small]}
mkdir -p "$out" || exit 2
small=${2:-}
audio=${AUDIO:-../shared/ravdess}
name=${NAME:-cpu-$(nproc)core}
python=${PYTHON:-python3}
failed=() patience=1
temporary=$(mktemp -d) && trap 'rm -rf "$temporary"' EXIT
# Its name is in the result's command.
wav=$temporary/wav-copies && mkdir "$wav"

part() { # SECONDS NAME COMMAND...: one part of the sweep, which ends after SECONDS at the latest
  local limit=$(($1 * patience)) what=$2 started=$SECONDS
  shift 2
  if timeout "$limit" "$python" -m bench "$@" --json "$out/$what.json" >"$out/$what.log" 2>&1; then
    echo "$what: $((SECONDS - started)) s"
    rm -f "$out/$what.log"
  else
    echo "$what: FAILED after $((SECONDS - started)) s, see $out/$what.log" >&2
    failed+=("$what")
  fi
}

if [ "$small" = --small ]; then
  # A rehearsal may be on a busy machine.
  patience=10 batches=(1 4) budget=(--warmup 1 --iterations 2) files=("$audio"/Actor_01/*-01.flac) clips=4 size=small
  rounds=1 copies=8 files_scored=4 archives=(--files 20)
else
  batches=(1 8 32 128 512) budget=(--warmup 1 --iterations 30 --seconds 1.5) files=("$audio") clips=64 size=compact
  rounds=10 copies=240 files_scored=64 archives=(--files 1000 --files 5000)
fi
first=$(find -L "${files[@]}" -name '*.flac' | sort | head -n 1)
if [ -z "$first" ]; then
  echo "there are no FLAC files in $audio: set AUDIO" >&2
  exit 2
fi

# The same recordings without compression, which cost less to decode.
find -L "${files[@]}" -name '*.flac' | sort | sed -n "1,${copies}p" | "$python" -c '
import pathlib, sys, soundfile
for line in sys.stdin.read().splitlines():
    samples, rate = soundfile.read(line, dtype="int16")
    soundfile.write(pathlib.Path(sys.argv[1]) / (pathlib.Path(line).stem + ".wav"), samples, rate)
' "$wav" || failed+=("WAV copies")

sizes=() && for batch in "${batches[@]}"; do sizes+=(--batch-size "$batch"); done
part 60 "startup-$name" startup "$first" --backend onnxruntime
part 60 smoke smoke
part 240 "throughput-default-$name" throughput "${files[@]}" --repeats 2
part 60 "throughput-wav-default-$name" throughput "$wav" --repeats 2
part 700 "formats-default-$name" formats "${files[@]}" --files "$copies" --repeats 3
part 240 "resume-default-$name" resume "${files[@]}" "${archives[@]}"
part 60 "training-$size-$name" training --size "$size" --clips "$clips"
part 600 "latency-default-$name" latency "${files[@]}" "${sizes[@]}" "${budget[@]}"
if [ "${PEERS:-1}" = 1 ]; then
  default=compact && [ "$size" = small ] && default=small
  optimum=() && [ -n "${OPTIMUM:-}" ] && optimum=(--optimum "$OPTIMUM")
  part 180 "peers-default-$name" peers --size "$default" --rounds "$rounds" "${optimum[@]}"
  # At base size a round of all engines takes some ten seconds at batch 8.
  [ "$size" = small ] || part 460 "peers-base-$name" peers --size base --rounds 3 "${optimum[@]}"
  # As with the peers, a round at base size takes most of a minute.
  default=base && [ "$size" = small ] && default=small
  part 420 "end-to-end-$default-$name" end-to-end "${files[@]}" --size "$default" --files "$files_scored" --repeats 3
fi
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
if [ "$small" = --small ]; then
  echo "all parts ran, in $SECONDS s; a rehearsal: its figures mean nothing"
  exit 0
fi
older=() && for file in "$out"/*.json; do [ "$file" -nt "$wav" ] || older+=("${file##*/}"); done
[ ${#older[@]} -eq 0 ] || echo "results from before stay in $out, delete what these replace: ${older[*]}"
echo "all parts done in $SECONDS s; to renew the pages: bench report $out --docs docs/benchmarks.md --docs docs/scaling.md"
