"""log.jsonl, TensorBoard events and pictures of a run."""
import json
import struct
import sys

import numpy as np

from jittwin.engine.logbook import Logbook


def events_in(run):
    """(step, tag, value) of the scalars and (step, tag, None) of everything else."""
    from tensorboardX.proto.event_pb2 import Event
    found = []
    for path in sorted(run.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:      # a TFRecord: length, its checksum, data, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12:12 + length])
            content = content[16 + length:]
            for value in event.summary.value:
                scalar = value.simple_value if value.WhichOneof("value") == "simple_value" else None
                found.append((event.step, value.tag, scalar))
            if event.HasField("session_log"):
                found.append((event.step, "start", None))
    return found


def test_a_run_is_written_down_without_torch(tmp_path):
    with Logbook(tmp_path) as log:
        log.losses("first", 1, 0, {"GAN": 0.5, "D": 1.5})
        log.picture("1", np.full((4, 6, 3), 7, np.uint8), 3)
        log.sync()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"phase": "first", "epoch": 1, "step": 0,
                                                                "GAN": 0.5, "D": 1.5}
    assert (tmp_path / "samples/1.png").exists()
    assert events_in(tmp_path) == [(0, "start", None), (0, "GAN", 0.5), (0, "D", 1.5), (3, "samples", None)]
    assert "torch" not in sys.modules


def test_measures_that_are_undefined_are_null_and_no_events(tmp_path):
    with Logbook(tmp_path) as log:
        log.measures("train", 2, 10, {"emd": 0.5, "srcc": None})
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"phase": "train", "epoch": 2, "step": 10,
                                                                "held_out/emd": 0.5, "held_out/srcc": None}
    assert events_in(tmp_path) == [(0, "start", None), (10, "held_out/emd", 0.5)]


def test_resuming_cuts_the_log_where_the_checkpoint_left_it(tmp_path):
    with Logbook(tmp_path) as log:
        log.losses("first", 1, 0, {"GAN": 0.5})
        position = log.sync()
        log.losses("first", 1, 1, {"GAN": 0.4})
    with Logbook(tmp_path, position, step=1) as log:
        assert log.sync() == position
        log.losses("first", 1, 1, {"GAN": 0.3})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["GAN"] for line in lines] == [0.5, 0.3]
    assert (1, "start", None) in events_in(tmp_path)


def test_without_tensorboardx_there_are_no_events(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with Logbook(tmp_path) as log:
        log.losses("first", 1, 0, {"GAN": 0.5})
        log.picture("1", np.zeros((4, 6, 3), np.uint8), 1)
        log.sync()
    assert not list(tmp_path.glob("events*")) and (tmp_path / "log.jsonl").stat().st_size
    assert "pip install tensorboardX" in capsys.readouterr().err
