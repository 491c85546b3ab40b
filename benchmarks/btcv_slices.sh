#!/usr/bin/env bash
# LoRA r=4 on the encoder with the whole decoder, against the decoder alone at equal minutes, and the box oracle, on 2-D CT slices
# split by patient. Usage: benchmarks/btcv_slices.sh DATA OUT [SEED]; two trainings run side by side, one CPU core each.
# DATA: folder `btcv_slices` (18 training patients, of which 2 are held out for choosing the checkpoint, and 5 test patients).
set -euo pipefail
data=$1 out=$2 seed=${3:-0}
export OMP_NUM_THREADS=1
common=(--data "$data" --held_out 2 --training.seed "$seed")
mkdir -p "$out"
# 1. The decoder on the frozen encoder at side 112: both methods start from it.
sampeft train "${common[@]}" --method decoder --side 112 --training.minutes 30 --training.head_first 0.3 \
    --training.head_batch 6 --training.validations 4 --out "$out/decoder-112"
# 2. At side 168, for equal minutes: LoRA joins, or the decoder goes on alone.
second=("${common[@]}" --side 168 --start_from "$out/decoder-112" --training.minutes 36 --training.validations 6)
sampeft train "${second[@]}" --method lora --options.whole_decoder true --training.head_first 0.2 --out "$out/lora-168" &
lora=$!
sampeft train "${second[@]}" --method decoder --training.head_first 1.0 --out "$out/decoder-168"
wait $lora
# 3. Scores on patients that nothing above has seen.
unset OMP_NUM_THREADS
sampeft oracle --data "$data" --out "$out/eval-oracle"
sampeft evaluate "$out/decoder-168" --data "$data" --out "$out/eval-decoder"
sampeft evaluate "$out/lora-168" --data "$data" --beside "[$out/eval-decoder,$out/eval-oracle]" --out "$out/eval-lora"
