"""`jittwin train` in two processes on both twins: the same run as in one, killed and resumed with another number."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import BACKENDS, ENVIRONMENT, ROOT, run, train
from test_train import LOW_RATE, assert_close, log

from jittwin.launching import free_port, mpirun

CHANGES = dict(global_batch="kept", lr=LOW_RATE, save_every=1)


def launched(backend: str, command: list[str]) -> tuple[list[subprocess.Popen], list[int]]:
    """The launcher's processes and the process numbers of the two ranks, as far as they are known at once."""
    command, options = [sys.executable, "-m", "jittwin", *command], dict(cwd=ROOT, stdout=subprocess.DEVNULL,
                                                                          stderr=subprocess.PIPE, text=True)
    if backend == "jittor":
        return [subprocess.Popen([*mpirun(2), *command], env=ENVIRONMENT, **options)], []
    meeting = {**ENVIRONMENT, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [subprocess.Popen(command, env={**meeting, "RANK": str(rank)}, **options) for rank in range(2)]
    return ranks, [process.pid for process in ranks]


def children(pid: int) -> list[int]:
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def kill_rank_1(processes: list[subprocess.Popen], ranks: list[int], latest: Path, checkpoint: str) -> None:
    """SIGKILL as soon as `latest` names the checkpoint."""
    deadline = time.monotonic() + 600
    while not (latest.exists() and latest.read_text().strip() == checkpoint):
        assert processes[0].poll() is None and time.monotonic() < deadline, processes[0].communicate()[1]
        time.sleep(0.005)
    os.kill((ranks or children(processes[0].pid))[1], signal.SIGKILL)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_processes_train_as_one_and_one_goes_on(backend, tmp_path):
    whole, folder = tmp_path / "one", tmp_path / "two"
    run(train(backend, whole, **CHANGES))[0].ok()
    processes, ranks = launched(backend, train(backend, folder, **CHANGES))
    kill_rank_1(processes, ranks, folder / "latest", "2")
    said = processes[0].communicate(timeout=300)[1]
    assert processes[0].returncode and "Traceback" not in said
    assert backend != "torch" or said.count("jittwin: ") == 1 and "another process of this run has ended" in said
    reached = (folder / "latest").read_text().strip()
    state = json.loads((folder / "checkpoints" / reached / "state.json").read_text())
    assert state["processes"] == 2 and 2 <= state["global_step"] < 4
    run(["train", "--out", folder, "--resume"], backend=backend)[0].ok()
    assert_close(log(folder), log(whole))


def test_accelerate_starts_two_processes_on_a_cpu_where_its_configuration_has_a_host_file(tmp_path):
    whole, folder = tmp_path / "one", tmp_path / "two"
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    (tmp_path / "two.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nmachine_rank: 0\nmixed_precision: 'no'\n"
        f"mpirun_config:\n  mpirun_hostfile: {tmp_path}/hosts\nnum_machines: 1\nnum_processes: 2\nuse_cpu: true\n"
        f"main_process_port: {free_port()}\n")
    changes = {**CHANGES, "max_steps": 2}
    run(train("torch", whole, **changes))[0].ok()
    places = os.pathsep.join([os.path.dirname(sys.executable), ENVIRONMENT["PATH"]])
    allowed = {"PATH": places, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run([sys.executable, "-m", "accelerate.commands.launch", "--config_file", tmp_path / "two.yaml",
                           "train.py", *train("torch", folder, **changes)[1:]], cwd=ROOT, capture_output=True, text=True,
                          env={**ENVIRONMENT, **allowed}, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / "checkpoints/1/state.json").read_text())["processes"] == 2
    assert_close(log(folder), log(whole))


def test_processes_that_differ_are_told_by_the_first(tmp_path):
    meeting = {**ENVIRONMENT, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    commands = [train("torch", tmp_path / "run", **{**CHANGES, "lr": rate}) for rate in (1e-3, 2e-3)]
    ranks = [subprocess.Popen([sys.executable, "-m", "jittwin", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                              env={**meeting, "RANK": str(rank)}, stderr=subprocess.PIPE)
             for rank, command in enumerate(commands)]
    said = [process.communicate(timeout=300) for process in ranks]
    assert [process.returncode for process in ranks] == [2, 2] and said[1] == ("", "")
    assert said[0][1] == (f"jittwin: {tmp_path / 'run'}: the 2 processes do not have the same settings: start all of "
                          "them with the same packages, settings and files\n")


def test_jittor_under_another_launcher_says_how_to_start(tmp_path):
    environment = {**ENVIRONMENT, "WORLD_SIZE": "2", "RANK": "0"}
    done = subprocess.run([sys.executable, "-m", "jittwin", *train("jittor", tmp_path / "run")], cwd=ROOT, text=True,
                          env=environment, capture_output=True)
    assert done.returncode == 2 and "mpirun -np 2 python train.py" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_distance_is_the_same_from_two_processes(backend, data, finished, tmp_path):
    samples = tmp_path / "samples"
    shutil.copytree(data / "imgs", samples)
    (samples / "broken.jpg").write_text("no picture")
    command = ["fid", samples, data / "imgs", "--random-weights", "--no-cache", "--skip-bad", "--batch", 2,
               "--backend", backend]
    for processes in (1, 2):
        run([*command, "--json", tmp_path / f"{processes}.json", "--processes", processes], backend=backend)[0].ok()
    assert (tmp_path / "2.json").read_bytes() == (tmp_path / "1.json").read_bytes()
    assert json.loads((tmp_path / "2.json").read_text())["skipped_a"] == 1


def test_scores_and_selections_are_the_same_from_two_processes(data, labels, finished, tmp_path):
    score = ["assess", data / "imgs", "--metrics", "aesthetic", "--aesthetic-tower", "tiny", "--random-weights",
             "--batch", 1, "--backend", "torch"]
    select = ["select", finished("torch"), "--labels", labels, "--reference", data / "imgs", "--random-weights",
              "--no-cache", "--backend", "torch"]
    for processes in (1, 2):
        share, folder = ["--processes", processes], tmp_path / str(processes)
        run([*score, *share, "--output", tmp_path / f"{processes}.csv", "--report", folder / "report"],
            [*select, *share, "--out", folder / "selection"])
    assert (tmp_path / "2.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    chosen = [sorted((tmp_path / str(processes) / "selection").iterdir()) for processes in (1, 2)]
    assert [path.name for path in chosen[0]] == [path.name for path in chosen[1]] and chosen[0]
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(*chosen))
    assert (tmp_path / "2/report/index.html").exists()


@pytest.mark.parametrize("task, changes", [
    ("tier", {"synthetic_images": 40, "batch_size": 8}), ("aesthetic", {"synthetic_images": 40, "batch_size": 8}),
    ("distortion", {"synthetic_images": 24, "val_split": 8, "warmup_epochs": 0, "joint_norm": "true"})])
def test_measures_of_an_epoch_are_those_of_one_process(task, changes, tmp_path):
    """The end of an epoch has measures of all processes, and a sample that the first one draws alone."""
    changes = {"preset": "tiny", **changes, "epochs": 1, "save_epochs": 1, "lr": 1e-6, "global_batch": "kept"}
    command = ["train", task, "--backend", "torch", *(part for key, value in changes.items()
                                                      for part in ("--set", f"{key}={value}"))]
    run([*command, "--out", tmp_path / "one"])[0].ok()
    ranks, _ = launched("torch", [*command, "--out", str(tmp_path / "two")])
    said = [process.communicate(timeout=300)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    one, two = (log(tmp_path / name)[-1] for name in ("one", "two"))
    assert one.keys() == two.keys() and any(key.startswith("held_out/") for key in one)
    for key, value in one.items():
        assert two[key] == (pytest.approx(value, rel=1e-3, abs=1e-3) if isinstance(value, float) else value), key
    assert list((tmp_path / "two/samples").iterdir())
