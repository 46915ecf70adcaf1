"""Make Jittor 1.3.11 fit for CUDA 13, and a CUDA toolkit out of NVIDIA's wheels.

    python scripts/cuda_jittor.py

Works on the packages of the Python that runs it, which must be a virtual environment. Jittor's sources are edited in
place: CUDA 13 has removed two fields of cudaDeviceProp, and its headers need C++17. NVIDIA's wheels (see
scripts/gpu_check.sh) hold a toolkit without the folder and the names of libraries that Jittor looks for; they are
linked. A second run changes nothing. The last line is the path of nvcc.
"""
import importlib.util
import sys
from pathlib import Path

# file of Jittor -> (what stands there, what must stand there, how often)
EDITS = {
    "extern/cuda/inc/helper_cuda.h": [("deviceProp.computeMode", "cudaComputeModeDefault", 3),
                                      ("deviceProp.clockRate", "1", 1)],
    "compiler.py": [('cc_flags += " -Wall -Wno-unknown-pragmas -std=c++14 -fPIC "',
                     'cc_flags += " -Wall -Wno-unknown-pragmas -std=c++17 -fPIC "', 1),
                    ('nvcc_flags = nvcc_flags.replace("-std=c++17", "-std=c++14 -Xcompiler -std:c++14")',
                     "pass", 1)],
}


def edit(jittor: Path) -> list[str]:
    """Edit the sources of Jittor in this folder; returns a line for each file. SystemExit: they are other sources."""
    lines = []
    for name, changes in EDITS.items():
        path = jittor / name
        text = before = path.read_text()
        for old, new, count in changes:
            if text.count(old) == count:
                text = text.replace(old, new)
            elif old in text or new not in text:
                sys.exit(f"{path}: holds {old!r} {text.count(old)} times, not {count}: this is not Jittor 1.3.11")
        path.write_text(text)
        lines.append(f"{path}: {'edited' if text != before else 'is edited already'}")
    return lines


def link(toolkit: Path) -> Path:
    """Link lib64, and each library under its name without a version; returns nvcc. SystemExit: there is no nvcc."""
    nvcc = toolkit / "bin/nvcc"
    if not nvcc.exists():
        sys.exit(f"{nvcc} is missing: install the wheels nvidia-cuda-nvcc, nvidia-nvvm, nvidia-cuda-crt, "
                 "nvidia-cuda-runtime, nvidia-cuda-cccl, nvidia-cublas and nvidia-curand")
    links = {toolkit / "lib64": "lib"}
    for library in sorted((toolkit / "lib").glob("*.so.*")):
        links[library.with_name(library.name.partition(".so.")[0] + ".so")] = library.name
    for place, target in links.items():
        if not place.exists():
            place.symlink_to(target)
    return nvcc


def package(name: str) -> Path:
    """The folder of an installed package. SystemExit: it is not installed, or not in a virtual environment."""
    found = importlib.util.find_spec(name)
    if found is None:
        sys.exit(f"{name} is not installed in {sys.prefix}")
    folder = Path(next(iter(found.submodule_search_locations)))
    if sys.prefix == sys.base_prefix or not folder.is_relative_to(sys.prefix):
        sys.exit(f"{folder} is in no virtual environment: sources that others use are not edited")
    return folder


if __name__ == "__main__":
    jittor, nvcc = package("jittor"), link(package("nvidia") / "cu13")
    print("\n".join(edit(jittor)))
    print(nvcc)
