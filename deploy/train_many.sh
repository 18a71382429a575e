#!/bin/sh
# Train on all GPUs of this machine, or on two processes of its processor where it has none. Same arguments as `duovox train`:
#     deploy/train_many.sh subnet --recipe paper --data features --out runs
# Any number of processes gives the same run; it goes on with --resume, also with another number.
set -eu
gpus=$(python -c 'import torch; print(torch.cuda.device_count())')
exec torchrun --standalone --nproc-per-node "$([ "$gpus" -gt 0 ] && echo "$gpus" || echo 2)" -m duovox train "$@"
