#!/usr/bin/env bash
# Every figure of docs/repurposed.md, from one command, run from the root of the repository:
#
#     benchmarks/repurposed.sh FEATURES OUT            # FEATURES: made by `duovox data prepare` of zero,one,two,three,four,five; needs '.[hf]'
#
# Trains three ordinary classifiers on clean recordings, repurposes each as it came and one of them once more as a copy that is
# fine-tuned on noise, and our own beside them: every Score Subnet with the same recipe, data order and 2,000 updates. Then 50 clips a
# word of each, seeds 0..49. About three hours on two cores; what is there already is not made again.
set -euo pipefail
features=$1 out=$2
recipe=examples/repurposed/compact.toml
words=zero,one,two,three,four,five
mkdir -p "$out"

for kind in resnet18 whisper_tiny m5; do
  [ -f "$out/classifiers/$kind/facts.json" ] || python examples/classifiers/train.py "$kind" --data "$features" --out "$out/classifiers/$kind"
done

ready() {  # ready NAME SOURCE [OPTION...]: repurpose, train what has to be trained, bundle, calibrate
  local name=$1 source=$2 part
  shift 2
  [ -d "$out/$name/bundle" ] && return
  duovox repurpose "$source" --data "$features" --out "$out/$name" --recipe "$recipe" "$@"
  for part in $( [ -n "$(grep -s 'conditioned = true' "$out/$name/recipe.toml")" ] && echo classifier ) subnet; do
    duovox train "$part" --data "$features" --out "$out/$name" --recipe "$out/$name/recipe.toml"
  done
  duovox bundle "$out/$name" --out "$out/$name/bundle" --recipe "$out/$name/recipe.toml" --vocoder sc06
  duovox calibrate "$out/$name/bundle" --data "$features" --trust-code
}

resnet=(examples.classifiers.resnet18:build --weights "$out/classifiers/resnet18/weights.safetensors" --labels $words)
m5=(examples.classifiers.m5:build --weights "$out/classifiers/m5/weights.safetensors" --labels $words --takes wave:B1S:8000)
ready resnet18 "${resnet[@]}" --takes examples/repurposed/resnet18.toml
ready whisper "$out/classifiers/whisper_tiny"
ready m5 "${m5[@]}"
ready resnet18_tuned "${resnet[@]}" --takes examples/repurposed/resnet18.toml --conditioned

if [ ! -d "$out/ours/bundle" ]; then
  duovox train classifier --data "$features" --out "$out/ours" --recipe "$recipe"
  duovox train subnet --data "$features" --out "$out/ours" --recipe "$recipe"
  duovox bundle "$out/ours" --out "$out/ours/bundle" --recipe "$recipe" --vocoder sc06
fi

python benchmarks/repurposed.py "$out"/{ours,resnet18_tuned,resnet18,whisper,m5} --data "$features" --out "$out/compared" --n 50 --limit 160
for name in ours resnet18_tuned resnet18 whisper m5; do
  python benchmarks/recogniser.py "$out/compared/$name" | tail -1
done
