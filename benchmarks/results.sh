#!/usr/bin/env bash
# The pages of docs/results, from one command:
#
#     benchmarks/results.sh FEATURES WORDS NOISE RUN OUT    # needs '.[quality,plots]'
#
# FEATURES: the six digits, made by `duovox data prepare`. WORDS: other words (mini_speech_commands), prepared likewise. NOISE: a folder
# of noise recordings. RUN: where `duovox train classifier` and `duovox train subnet` of the recipe compact wrote (the weights of the bundle
# sc06). OUT: trainings and clips. Some five hours on one core; call it again after an interruption, or to go on.
set -euo pipefail
features=$1 words=$2 noise=$3 run=$4 out=$5
here=$(cd "$(dirname "$0")/.." && pwd)
fast=(--sampler dpmpp_2m --steps 14)
common=(--recipe compact --data "$features" --classifier "$run/classifier" --vocoder sc06 --results "$here/docs/results" --batch 10)

mkdir -p "$out/gamma/systems/subnet_label"
[ -d "$out/gamma/systems/subnet_label/subnet" ] || cp -r "$run/subnet" "$out/gamma/systems/subnet_label/"
duovox experiment table1 "${common[@]}" --out "$out/table1" --n 50 --seeds 3 --updates 1500 "${fast[@]}" --quality dnsmos --quality-clips 20
duovox experiment gamma "${common[@]}" --out "$out/gamma" --n 50 --seeds 1 "${fast[@]}"
duovox experiment regimes "${common[@]}" --out "$out/regimes" --n 44 --seeds 2 --updates 300 "${fast[@]}"
duovox experiment shift "${common[@]}" --out "$out/shift" --n 30 --seeds 1 --updates 300 "${fast[@]}" --words "$words" --noise "$noise"
