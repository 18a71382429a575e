#!/usr/bin/env bash
# Every figure of README and MODEL_CARD, from one command:
#
#     benchmarks/show.sh FEATURES OUT [BUNDLE [CLIPS]]     # FEATURES: made by `duovox data prepare`; needs '.[quality,recogniser,plots]'
#
# Generates CLIPS guided clips a word (50; seeds 0, 1, ..., default settings) and as many unconditional ones, takes as many real test clips
# through each vocoder and as they are, and scores every folder by the independent judge, a general recogniser (English words) and
# DNSMOS. About an hour on one core for six words; what is there already is not made again.
set -euo pipefail
features=$1 out=$2 bundle=${3:-sc06} clips=${4:-50}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
english=$(python - "$bundle" <<'PY'
import sys
from duovox import Duovox
voice = Duovox.from_pretrained(sys.argv[1])
print(",".join(label for label in voice.labels if voice.config.languages.get(label, "en") == "en"))
PY
)

for vocoder in neural griffin_lim none; do
  [ -d "$out/copy_$vocoder" ] || python "$here/copy_synthesis.py" "$features" "$out/copy_$vocoder" --per-label "$clips" --vocoder "$vocoder" --bundle "$bundle"
done
[ -f "$out/guided.md" ] || duovox evaluate "$bundle" --data "$features" --n "$clips" --clips "$out/guided" --out "$out/guided"
[ -f "$out/unconditional.md" ] || duovox evaluate "$bundle" --data "$features" --n "$clips" --unconditional --clips "$out/unconditional" --out "$out/unconditional"
for set in copy_neural copy_griffin_lim copy_none; do
  [ -f "$out/$set.md" ] || duovox evaluate "$out/$set" --data "$features" --out "$out/$set"
done
for set in guided unconditional copy_neural copy_griffin_lim copy_none; do
  [ -f "$out/$set.dnsmos" ] || python "$here/dnsmos.py" "$out/$set" | tee "$out/$set.dnsmos"
done
for set in guided copy_neural copy_griffin_lim copy_none; do
  [ -f "$out/$set.recogniser" ] || python "$here/recogniser.py" "$out/$set" --words "$english" | tee "$out/$set.recogniser"
done
python "$here/accuracy_by_sigma.py" "$features" "$out/accuracy_by_sigma.svg" --bundle "$bundle" | tee "$out/accuracy_by_sigma.md"
python "$here/sheet.py" "$features" "$out/sheet.png" --bundle "$bundle"
