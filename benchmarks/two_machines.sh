#!/bin/bash
# Two network namespaces as two machines: a training over both, one of which goes down and comes back, beside the same
# training in one process. Needs Linux, root, iproute2 and an environment with sampeft; no network, no GPU.
#   sudo env PATH="$PATH" benchmarks/two_machines.sh [FOLDER]     prints what it does; exit code 0 only if all is as it should be
set -euo pipefail
if [ "$(id -u)" != 0 ] || ! command -v ip >/dev/null; then
    echo "skipped: two_machines.sh makes network namespaces, which needs root and iproute2"
    exit 0
fi
folder=${1:-$(mktemp -d)}
mkdir -p "$folder"
export OMP_NUM_THREADS=1 SAMPEFT_CACHE="$folder/cache" TORCH_CPP_LOG_LEVEL=ERROR
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # or a machine that comes back waits in vain for an address that was told only once
first=sampeft-$$-a second=sampeft-$$-b
agents=()
# Everything that runs in a namespace, at once: torchrun, and its workers, which outlive it otherwise.
down() { ip netns pids "$1" 2>/dev/null | xargs --no-run-if-empty kill -9 2>/dev/null || true; }
clean() {
    for machine in "$first" "$second"; do
        down "$machine"
        ip netns delete "$machine" 2>/dev/null || true
    done
}
trap clean EXIT

ip netns add "$first"
ip netns add "$second"
ip link add veth0 netns "$first" type veth peer name veth0 netns "$second"
ip -n "$first" address add 10.77.0.1/24 dev veth0
ip -n "$second" address add 10.77.0.2/24 dev veth0
for machine in "$first" "$second"; do
    ip -n "$machine" link set lo up
    ip -n "$machine" link set veth0 up
done

python - "$folder/data" <<'PYTHON'
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image

root, generator = Path(sys.argv[1]), np.random.default_rng(0)
for part in ("images", "labels"):
    (root / part).mkdir(parents=True, exist_ok=True)
y, x = np.mgrid[:64, :64]
for i in range(6):
    label = np.zeros((64, 64), np.uint8)
    for k in (1, 2):
        cx, cy = generator.integers(16, 48, 2)
        label[(x - cx) ** 2 + (y - cy) ** 2 < 80] = k
    image = np.clip(40 + 70 * label + generator.normal(0, 10, label.shape), 0, 255).astype(np.uint8)
    Image.fromarray(image).save(root / "images" / f"p{i}.png")
    Image.fromarray(label).save(root / "labels" / f"p{i}.png")
(root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "disc": 1, "spot": 2}}))
PYTHON

train=(sampeft train --data "$folder/data" --backbone lite-medsam --weights random --side 56 --held_out 1 --training.steps 12
       --training.batch 3 --training.validations 4 --training.head_first 0.25 --training.checkpoint_minutes 0 --training.precision fp32)
echo "== one process"
"${train[@]}" --out "$folder/one" 2> "$folder/one.log"

# start NAMESPACE ADDRESS IS_HOST LOG: one machine's part. Real machines find out by their names which of them the endpoint
# is; these two share a name and have to be told.
start() {
    GLOO_SOCKET_IFNAME=veth0 ip netns exec "$1" torchrun --nnodes=2 --nproc-per-node=1 --max-restarts=3 \
        --rdzv-backend=c10d --rdzv-endpoint=10.77.0.1:29500 --rdzv-id=two-machines --local-addr="$2" --rdzv-conf=is_host="$3" \
        -m "${train[@]}" --out "$folder/two" --resume --force > "$folder/$4.log" 2>&1 &
    agents+=($!)
}
lines() { if [ -f "$folder/two/metrics.jsonl" ]; then wc -l < "$folder/two/metrics.jsonl"; else echo 0; fi; }

echo "== two machines, $(date +%T)"
start "$first" 10.77.0.1 1 first
start "$second" 10.77.0.2 0 second
while [ "$(lines)" -lt 1 ]; do
    kill -0 "${agents[0]}" "${agents[1]}"
    sleep 0.2
done
down "$second"
echo "== the second machine went down at $(date +%T), behind step $(tail -n 1 "$folder/two/metrics.jsonl")"
sleep 10
echo "== it comes back at $(date +%T)"
start "$second" 10.77.0.2 0 second-again
wait "${agents[0]}" && echo "== the first machine ended with 0 at $(date +%T)"
wait "${agents[2]}" && echo "== the second machine ended with 0"
grep -h "resume  " "$folder/first.log"

python - "$folder" <<'PYTHON'
import json, sys
from pathlib import Path
from safetensors.torch import load_file

root = Path(sys.argv[1])
one, two = ([json.loads(line) for line in (root / name / "metrics.jsonl").read_text().splitlines()] for name in ("one", "two"))
assert [r["step"] for r in one] == [r["step"] for r in two], "steps differ"
losses = [abs(a["loss"] - b["loss"]) for a, b in zip(one, two) if "loss" in a]
scores = [abs((a["val_dsc"] or 0) - (b["val_dsc"] or 0)) for a, b in zip(one, two) if "val_dsc" in a]
a, b = (load_file(root / name / "last" / "adapter.safetensors") for name in ("one", "two"))
weights = max(float((a[key] - b[key]).abs().max()) for key in a)
print(f"largest differences from one process: loss {max(losses):.1e}, held-out DSC {max(scores):.1e}, weight {weights:.1e}")
assert max(losses) < 1e-3 and not list(root.rglob("*.tmp"))
PYTHON
