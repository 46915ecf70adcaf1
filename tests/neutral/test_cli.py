"""Frozen flags, one-line errors, and commands that explain themselves without importing a framework."""
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from jittwin import backend, cli, tasks, training
from jittwin.checkpoints.store import Checkpoints
from jittwin.errors import UserError

ROOT = Path(__file__).parents[2]
EVALUATION = {"--labels", "--reference", "--mode", "--width", "--seed", "--fid-weights", "--random-weights",
              "--backend", "--device", "--threads", "--workers", "--batch", "--skip-bad", "--no-cache", "--max-pixels",
              "--ignore"}
FLAGS = {
    "train": {"task", "--backend", "--data", "--out", "--config", "--set", "--resume", "--continue",
              "--device", "--threads", "--max-pixels", "--ignore"},
    "generate": {"--weights", "--ema", "--labels", "--out", "--backend", "--device", "--threads", "--width", "--batch",
                 "--seed", "--seeds", "--noise", "--pure", "--format", "--quality", "--sheet", "--reference", "--mode",
                 "--fid-weights", "--random-weights", "--max-pixels", "--ignore"},
    "select": {"run", "--epochs", "--out", "--ema", "--segmenter", "--real", "--aesthetic", "--aesthetic-tower",
               "--tower", "--processes", *EVALUATION},
    "assess": {"images", "--metrics", "--output", "--report", "--random-weights", "--backend", "--device", "--dtype",
               "--batch", "--workers", "--threads", "--skip-bad", "--aesthetic-weights", "--aesthetic-tower",
               "--tower", "--labels", "--segmenter", "--prompts", "--rank", "--against", "--column", "--skip-unrated",
               "--skip-unused", "--tier-weights", "--tier-mode", "--tier-tokenizer", "--tier-image-prompts",
               "--distortion-weights", "--distortion-tokenizer", "--distortion-text",
               "--blipscore-weights", "--blipscore-tokenizer", "--imagereward-weights", "--imagereward-tokenizer",
               "--clipscore-weights", "--clipscore-tokenizer", "--clipscore-scale", "--clipscore-cleaning",
               "--pickscore-weights", "--pickscore-tokenizer", "--memory-limit", "--max-pixels", "--ignore", "--processes",
               "--compile"},
    "merge": {"sources", "--epochs", "--out", "--format", "--dtype", "--method", "--decay", "--ema", *EVALUATION},
    "fid": {"a", "b", "--mode", "--weights", "--random-weights", "--backend", "--device", "--threads", "--workers",
            "--batch", "--skip-bad", "--no-cache", "--metrics", "--save-stats", "--json", "--max-pixels", "--processes"},
    "convert": {"src", "dst", "--model", "--verify", "--dtype", "--to", "--mode", "--part", "--reference-compat"},
    "prepare": {"kind", "folder", "--synthetic", "--photographs", "--distortions", "--size", "--seed", "--maps", "--max-pixels",
                "--ignore"},
    "list": set(),
}


def flags(command):
    actions = cli.JITTWIN.parser_of(command)._actions
    return {name for action in actions for name in action.option_strings or [action.dest] if name != "-h"}


@pytest.mark.parametrize("command", FLAGS)
def test_flags_are_frozen(command):
    assert flags(command) == FLAGS[command] | {"--help", "--debug"}


def test_the_flags_of_every_command_are_pinned():
    assert set(FLAGS) == set(cli.JITTWIN.commands)


@pytest.mark.parametrize("argv, message", [
    (["trian"], "unknown command 'trian' (did you mean 'train'?)"),
    (["train", "--backnd", "torch"], "unknown option '--backnd' (did you mean '--backend'?)"),
    (["train", "--res"], "unknown option '--res'"),
    (["train", "--backend", "torhc"], "(did you mean 'torch'?): choose from jittor, torch"),
    (["train", "apf_gna", "--backend", "torch"], "unknown task 'apf_gna' (did you mean 'apf_gan'?)"),
    (["train", "apf_gan", "more"], "unexpected argument 'more'"),
    (["train", "--out", "a", "--out", "b"], "--out: given twice, 'a' and 'b': give it once"),
    (["assess", "x", "--tower", "a", "--aesthetic-tower", "b"], "given twice, 'a' and 'b': give it once"),
    (["train", "--threads", "x"], "--threads: invalid int value: 'x'"),
    (["train", "--resume", "--continue", "3"], "not allowed with argument"),
    (["prepare", "landscape", "x", "--size", "12"], "'12' is not WIDTHxHEIGHT"),
    (["prepare", "landscape", "no/such/folder"], "no/such/folder"),
    (["prepare", "ava", "no/such/folder"], "no/such/folder: no such folder; give the folder with AVA.txt and images/"),
    (["prepare", "aigiqa4k", "no/such/folder"], "no/such/folder: no such folder; give the folder with annotation.xlsx"),
    (["prepare", "ava", "x", "--synthetic", "0"], "--synthetic 0: must be at least 1"),
    (["prepare", "landscape", "x", "--photographs", "y"], "--photographs: needs ava, aigiqa4k or evalmuse, and --syn"),
    (["prepare", "evalmuse", "no/such/folder"], "no/such/folder: no such folder; give the folder with train/images/"),
    (["prepare", "ava", "x", "--maps", "512"], "--maps 512: is for evalmuse; leave it out"),
    (["prepare", "evalmuse", "x", "--distortions", "glaring"], "--distortions glaring: is for evalmuse with --synthetic"),
    (["prepare", "ava", "no/such", "--synthetic", "2", "--photographs", "no.jpg"], "no.jpg: no such file or folder")])
def test_mistakes_are_one_line_and_status_2(argv, message, capsys):
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


class Asked:
    """A backend whose GPU is as `answer` says; nobody may set it up to find out."""

    def __init__(self, answer):
        self.answer = answer

    def usable(self, device):
        return self.answer if device == "cuda" else ""


def test_a_device_is_asked_for_and_not_tried():
    with_gpu, without = Asked(""), Asked("device cuda: there is none")
    assert [backend.usable_device(with_gpu, device) for device in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    assert [backend.usable_device(without, device) for device in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(UserError, match="^device cuda: there is none$"):
        backend.usable_device(without, "cuda")
    with pytest.raises(UserError, match="device 'gpu'.*choose from auto, cpu, cuda"):
        backend.usable_device(with_gpu, "gpu")


def test_debug_shows_the_traceback():
    with pytest.raises(UserError):
        cli.main(["train", "apf_gna", "--debug"])


def test_interrupt_and_system_errors(capsys):
    def interrupted():
        raise KeyboardInterrupt

    def unreadable():
        open(ROOT / "none" / "file")

    assert cli.guarded(interrupted, debug=False) == 130
    assert cli.guarded(unreadable, debug=False) == 2
    assert "none/file: No such file or directory" in capsys.readouterr().err


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, **options)


HELP = [[], ["--help"], ["--version"], ["list"], *([command, "--help"] for command in FLAGS)]


@pytest.mark.parametrize("argv", HELP)
def test_help_imports_no_framework(argv):
    code = ("import sys; from jittwin.cli import main\n"
            "try: status = main(sys.argv[1:])\n"
            "except SystemExit as end: status = end.code\n"
            "found = {'torch', 'jittor', 'transformers', 'jt_models', 'torch_models'} & set(sys.modules)\n"
            "sys.exit(status or ' '.join(found) or None)")
    done = python("-c", code, *argv)
    assert done.returncode == 0, done.stderr
    assert done.stdout and not done.stderr


def test_the_tables_shorten_no_name(capsys, monkeypatch):
    monkeypatch.setattr("jittwin.commands.listing.WIDTH", 80)
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert "…" not in printed.replace("b0 …", "") and "backends installed here: " in printed
    assert "apf_gan.discriminator" in printed


def test_train_py_and_python_m_jittwin_are_the_same_command():
    first, second = python("train.py", "--help"), python("-m", "jittwin", "train", "--help")
    assert first.stdout == second.stdout and first.stdout.startswith("usage: jittwin train")


def test_a_reader_that_leaves_is_no_error():
    script = "import sys; from jittwin.cli import main; sys.exit(main(['--help']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 141 and not done.stderr


class ToyBackend(toy.Backend):
    def setup(self, device, seed, threads, precision):
        pass


@pytest.fixture
def toy_train(tmp_path, monkeypatch):
    """training.train on the toy task; keywords as there."""
    monkeypatch.setitem(tasks.TASKS, "toy", "toy")
    monkeypatch.setattr(training, "load_backend", lambda *_: ToyBackend())
    usual = ["log_every=2"]

    def call(*overrides, **keywords):
        return training.train("toy", **{"backend_name": "torch", "out": str(tmp_path / "run"), **keywords,
                                     "overrides": [*usual, *overrides]})
    call.run = tmp_path / "run"
    return call


def test_resume_remembers_backend_and_settings(toy_train):
    assert toy_train("max_steps=7", "lr=0.03") == 0
    assert toy_train("max_steps=9", resume=True, backend_name=None) == 0
    checkpoints = Checkpoints(toy_train.run)
    state = checkpoints.state(checkpoints.latest())
    assert (state["global_step"], state["backend"], state["task"]) == (9, "torch", "toy")
    assert "lr: 0.03" in (toy_train.run / "config.yaml").read_text()


def test_a_run_of_an_earlier_version_whose_settings_lack_some_is_resumed(toy_train):
    toy_train("max_steps=7", "lr=0.03")
    path = toy_train.run / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(("precision:", "keep_optimizers:"))))
    assert toy_train("max_steps=9", resume=True) == 0
    assert "precision: float32" in path.read_text() and "lr: 0.03" in path.read_text()
    with pytest.raises(UserError, match="precision was float32, is bfloat16: use --continue EPOCH"):
        toy_train("precision=bfloat16", resume=True)


def test_the_arithmetic_asked_for_reaches_the_backend(toy_train, monkeypatch):
    seen = []
    monkeypatch.setattr(ToyBackend, "setup", lambda self, precision, **rest: seen.append(precision))
    toy_train("max_steps=1", "precision=bfloat16")
    assert seen == ["bfloat16"]


def test_resume_refuses_other_settings_and_continue_takes_them(toy_train):
    toy_train("max_steps=12")
    with pytest.raises(UserError, match="lr was 0.05, is 0.01: use --continue EPOCH"):
        toy_train("lr=0.01", resume=True)
    assert toy_train("lr=0.01", continue_from="1") == 0
    assert Checkpoints(toy_train.run).state("2")["global_step"] == 10


def test_runs_are_not_overwritten_or_invented(toy_train):
    with pytest.raises(UserError, match="no run to resume"):
        toy_train(resume=True)
    with pytest.raises(UserError, match="--backend is missing: choose from jittor, torch"):
        toy_train(backend_name=None)
    toy_train("max_steps=5")
    with pytest.raises(UserError, match="already holds a run .checkpoint 1.: pass --resume"):
        toy_train()
    with pytest.raises(UserError, match="no checkpoint '3': there is 1"):
        toy_train(continue_from="3")


def test_a_run_keeps_its_task(toy_train, monkeypatch):
    toy_train("max_steps=1")
    monkeypatch.setitem(tasks.TASKS, "other", "toy")
    with pytest.raises(UserError, match="is a run of toy, not of other"):
        training.train("other", backend_name="torch", out=str(toy_train.run), resume=True)


def test_a_run_killed_before_its_first_checkpoint_starts_again(toy_train):
    toy_train.run.mkdir()
    (toy_train.run / "config.yaml").write_text("seed: 11\n")
    assert toy_train("max_steps=2", resume=True) == 0
    assert Checkpoints(toy_train.run).state("1.2")["seed"] == 11


def test_backend_that_cannot_be_imported(monkeypatch):
    from jittwin.backend import load_backend
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith("torch_models")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match="backend 'torch' cannot be imported .*pip install torch"):
        load_backend("torch")



def test_what_the_terminals_encoding_lacks_is_escaped(monkeypatch):
    screen = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(screen, "ascii"))
    assert cli.guarded(lambda: print("优.png"), debug=False) is None
    assert screen.getvalue() == b"\\u4f18.png\n"
