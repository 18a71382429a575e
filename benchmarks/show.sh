#!/usr/bin/env bash
# Every figure of README and MODEL_CARD, from one command:
#
#     benchmarks/show.sh FEATURES OUT [BUNDLE]        # FEATURES: made by `duovox data prepare`; needs '.[quality,recogniser,plots]'
#
# Generates 300 guided clips (50 a word, seeds 0..49, default settings) and 300 unconditional ones, takes 300 real test clips through
# each vocoder and as they are, and scores every folder by the independent judge, a general recogniser and DNSMOS. About an hour
# on one core; what is there already is not made again.
set -euo pipefail
features=$1 out=$2 bundle=${3:-sc06}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"

for word in zero one two three four five; do
  [ -d "$out/guided/$word" ] || duovox generate "$word" --n 50 --seed 0 --bundle "$bundle" --out "$out/guided/$word"
done
[ -d "$out/unconditional" ] || duovox generate any --n 300 --seed 0 --bundle "$bundle" --out "$out/unconditional"
for vocoder in neural griffin_lim none; do
  [ -d "$out/copy_$vocoder" ] || python "$here/copy_synthesis.py" "$features" "$out/copy_$vocoder" --n 300 --vocoder "$vocoder" --bundle "$bundle"
done
for set in guided unconditional copy_neural copy_griffin_lim copy_none; do
  [ -f "$out/$set.md" ] || duovox evaluate "$out/$set" --data "$features" --out "$out/$set"
  [ -f "$out/$set.dnsmos" ] || python "$here/dnsmos.py" "$out/$set" | tee "$out/$set.dnsmos"
done
for set in guided copy_neural copy_griffin_lim copy_none; do
  [ -f "$out/$set.recogniser" ] || python "$here/recogniser.py" "$out/$set" | tee "$out/$set.recogniser"
done
python "$here/accuracy_by_sigma.py" "$features" "$out/accuracy_by_sigma.svg" --bundle "$bundle" | tee "$out/accuracy_by_sigma.md"
python "$here/sheet.py" "$features" "$out/sheet.png" --bundle "$bundle"
