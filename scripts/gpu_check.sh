#!/usr/bin/env bash
# Check both twins on one CUDA machine without a network, in under 10 minutes.
#
#     scripts/gpu_check.sh WHEELS [RESULTS]
#
# WHEELS: a folder of wheels for this machine's Python (3.11 or 3.12), filled on a machine with a network by
#
#     pip download -d WHEELS 'jittor==1.3.11.0' 'numpy<2' onednn-devel-cpu-gomp==2021.2.0 \
#         pillow scipy safetensors ml_dtypes pyyaml tqdm rich transformers setuptools wheel
#     pip download -d WHEELS --no-deps peft accelerate \
#         nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
#         nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-cublas==13.0.2.14 nvidia-curand==10.4.0.35
#
# RESULTS: the folder for results (default: gpu_check). The machine brings g++, Python's headers, and PyTorch with CUDA
# in $PYTHON (default: python3). Each part has a time limit and a line PASS or FAIL at the end; one that fails does not
# stop the others. DEVICE=cpu runs every part that needs no GPU at tiny size, to try this script; PATIENCE=10 makes the
# limits ten times as long.
set -u
wheels=${1:?usage: scripts/gpu_check.sh WHEELS [RESULTS]}
results=$(realpath -m "${2:-gpu_check}")
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
patience=${PATIENCE:-1}
cd "$(dirname "$0")/.."
[ -d "$wheels" ] || { echo "$wheels: no such folder" >&2; exit 2; }
wheels=$(realpath "$wheels")
mkdir -p "$results"
export PYTHONPATH=$PWD JITTWIN_CACHE=$results/cache
size=full
dtype=bfloat16
[ "$device" = cpu ] && { size=tiny; dtype=float32; }
venv=$results/venv
failed=0
summary=()

# part NAME SECONDS COMMAND...: run a command with a time limit; its output goes to RESULTS/NAME.log and here.
part() {
    local name=$1 limit=$(($2 * patience)) begun=$SECONDS status word=PASS
    shift 2
    echo "== $name: $*"
    timeout -k 5 "$limit" "$@" > "$results/$name.log" 2>&1
    status=$?
    tail -n 25 "$results/$name.log"
    [ $status -eq 0 ] || { word="FAIL (status $status)"; failed=1; }
    summary+=("$name: $word in $((SECONDS - begun)) s")
    return $status
}

# Jittor needs NumPy 1 and edited sources, so it has a virtual environment of its own. That sees the machine's packages
# too, because parity starts both twins with one Python.
environment() {
    "$python" -m venv "$venv" || return
    "$venv/bin/python" -m pip install --quiet --no-index --find-links "$wheels" 'jittor==1.3.11.0' 'numpy<2' \
        onednn-devel-cpu-gomp==2021.2.0 pillow scipy safetensors ml_dtypes pyyaml tqdm rich transformers || return
    "$venv/bin/python" -m pip install --quiet --no-index --find-links "$wheels" --no-deps peft accelerate || return
    if [ "$device" = cuda ]; then
        "$venv/bin/python" -m pip install --quiet --no-index --find-links "$wheels" --no-deps nvidia-cuda-nvcc \
            nvidia-nvvm nvidia-cuda-crt nvidia-cuda-runtime nvidia-cuda-cccl nvidia-cublas nvidia-curand || return
        "$venv/bin/python" scripts/cuda_jittor.py || return
    fi
    # Last, or pip would take the machine's packages for ours.
    "$python" -c 'import site; print("\n".join(site.getsitepackages()))' \
        > "$(echo "$venv"/lib/python3*/site-packages)/machine.pth"
}

bench() {
    "$venv/bin/python" scripts/bench.py "$1" --size "$size" --device "$device" --backend "$2" "${@:3}"
}

# Jittor's own start: its core and the libraries of CUDA are compiled, then a few operators are compared with NumPy.
jittor_start() {
    "$venv/bin/python" -c "
from jittwin.backend import load_backend
backend = load_backend('jittor', '$device')
backend.setup(device='$device')
from jt_models import self_check
from jt_models.boot import jt
print('CUDA', jt.has_cuda, jt.flags.nvcc_flags)
reason = self_check.failure()
raise SystemExit('self-check: ' + reason if reason else 0)"
}

export -f environment bench jittor_start
export python device size venv wheels
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo "no nvidia-smi"

part environment 60 bash -c environment || { printf '%s\n' "${summary[@]}"; exit 1; }
libraries=${LD_LIBRARY_PATH:-}
if [ "$device" = cuda ]; then
    nvcc_path=$(tail -n 1 "$results/environment.log")
    export nvcc_path
    libraries=$(dirname "$(dirname "$nvcc_path")")/lib64${libraries:+:$libraries}
fi

# Jittor's core is compiled on the CPU's cores while PyTorch uses the GPU.
LD_LIBRARY_PATH=$libraries jittor_start > "$results/jittor_start.log" 2>&1 &
compiling=$!
for task in train lora tier distortion_step; do
    part "torch_$task" 40 bash -c "bench $task torch --dtype $dtype --peak --json '$results/torch_$task.json'"
done
part torch_compiled 60 bash -c "bench tower_compiled torch --dtype $dtype --json '$results/torch_compiled.json'"

begun=$SECONDS
( sleep $((60 * patience)); kill "$compiling" 2> /dev/null ) &
limit=$!
part parity_torch 60 "$venv/bin/python" -m parity check apf_gan.encoder siglip --backend torch --device "$device" \
    --up-to L5 --json "$results/parity_torch.json"
if wait "$compiling"; then summary+=("jittor_start: PASS, waited for $((SECONDS - begun)) s")
else summary+=("jittor_start: FAIL"); failed=1; fi
kill "$limit" 2> /dev/null
tail -n 5 "$results/jittor_start.log"

export LD_LIBRARY_PATH=$libraries       # PyTorch finds its own libraries without it
for model in aesthetic apf_gan.generator; do
    part "parity_$model" 85 "$venv/bin/python" -m parity check "$model" --device "$device" --up-to L5 \
        --json "$results/parity_$model.json"
done
part jittor_apf_gan 75 bash -c "bench train jittor --json '$results/jittor_train.json'"
part jittor_so400m 75 bash -c "bench lora jittor --json '$results/jittor_lora.json'"

printf '%s\n' "${summary[@]}" | tee "$results/summary.txt"
exit $failed
