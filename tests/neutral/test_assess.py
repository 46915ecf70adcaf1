"""Assessing pictures with a metric that needs no framework: their brightness."""
import csv
import importlib.util
import io
import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jittwin import cli
from jittwin.commands import assess as command
from jittwin.data.pictures import ImageSet
from jittwin.errors import UserError
from jittwin.metrics.assessment import assess, gather
from jittwin.metrics.catalog import ASSESSED, METRICS
from jittwin.metrics.metric import Info, Scores
from jittwin.report.charts import histogram
from jittwin.report.files import Report, as_csv, as_json


class Brightness:
    """Mean grey of a picture; a Metric. calls: sizes of the batches."""

    info = Info("brightness", "assess", "mean grey", "higher", (0, 255), "none")
    profile = ("brightness_low", "brightness_high")
    provenance = {"weights": "none"}
    towers = notes = ()

    def __init__(self, random=False):
        self.random, self.calls = random, []

    def preprocess(self, image):
        return image.mean((0, 1))

    def score(self, batch):
        self.calls.append(len(batch.names))
        return Scores([{"brightness": float(x.mean()), "brightness_low": 0.25, "brightness_high": 0.75}
                       for x in batch.pixels])

    def describe(self, value):
        return "bright" if value > 127 else "dark"


class Length:
    """Letters of a picture's prompt; draws its map, the picture in grey, where one is asked for."""

    info = Info("length", "assess", "letters of the prompt", "higher", (0, 1), "none", needs_prompt=True)
    profile, notes, random, provenance, towers = (), (), False, {}, ()

    def __init__(self, preprocess):
        self.preprocess = preprocess

    def score(self, batch):
        maps = [pixels.astype(np.uint8) for pixels in batch.pixels] if batch.draw else None
        assert [pixels.shape for pixels in batch.pixels] == list(batch.sizes)
        return Scores([{"length": float(len(prompt))} for prompt in batch.prompts], maps)

    def describe(self, value):
        return ""


def picture(path, value, size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path)


@pytest.fixture
def folder(tmp_path):
    """Four pictures in two levels, one of them with markup in its name, a file that is none, and a damaged one."""
    root = tmp_path / "set"
    for name, value in (("2.png", 20), ("10.png", 200), ("deep/<b>1.png", 120), ("a.gif", 250)):
        picture(root / name, value)
    (root / "notes.txt").write_text("no picture")
    (root / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    return root


def test_rows_are_in_natural_order_and_bad_files_are_left_out(folder):
    metric = Brightness()
    found = assess(gather([str(folder)]), [metric], batch=3, quiet=True)
    assert [(row["image"], row["brightness"]) for row in found.rows] == [
        ("2.png", 20), ("10.png", 200), ("a.gif", 250), ("deep/<b>1.png", 120)]
    assert metric.calls == [3, 1]
    assert (found.rows[0]["width"], found.rows[0]["height"]) == (12, 8)
    assert len(found.failed) == 1 and "broken.jpg: cannot be read" in found.failed[0]
    assert found.summary(metric) == {
        "mean": 147.5, "std": pytest.approx(np.std([20, 200, 250, 120])), "min": 20, "max": 250, "n": 4,
        "better": "higher", "range": "0 to 255", "weights": "none"}


def test_every_picture_is_decoded_once_for_all_metrics(folder, monkeypatch):
    decoded, decode = [], ImageSet.decode
    monkeypatch.setattr(ImageSet, "decode", lambda self, index, *admit: decoded.append(index) or decode(self, index))
    assess(gather([str(folder)]), [Brightness(), Brightness()], thumbnails=True, quiet=True)
    assert sorted(decoded) == [0, 1, 2, 3, 4]


def test_metrics_that_prepare_alike_share_the_array_and_prompts_go_with_their_pictures(folder, tmp_path):
    prepared, drawn = [], {}

    def grey(image):
        prepared.append(image.shape)
        return image.mean(2)

    images = gather([str(folder)])
    found = assess(images, [Length(grey), Length(grey)], batch=3, prompts=[name * 2 for name in images.names],
                   on_map=lambda metric, name, array: drawn.__setitem__((metric, name), array), quiet=True)
    assert len(prepared) == len(found.rows) == 4
    assert all(row["prompt"] == row["image"] * 2 and row["length"] == len(row["prompt"]) for row in found.rows)
    assert {key: array.mean() for key, array in drawn.items()} == {
        ("length", "2.png"): 20, ("length", "10.png"): 200, ("length", "a.gif"): 250, ("length", "deep/<b>1.png"): 120}


def test_maps_lie_beside_the_report(folder, tmp_path):
    report, images = Report(tmp_path / "report"), gather([str(folder)])
    found = assess(images, [Length(lambda image: image.mean(2))], prompts=["a <b>"] * 5, thumbnails=True,
                   on_map=report.write_map, quiet=True)
    report.write_map("length", "../outside.png", np.zeros((2, 2), np.uint8))
    report.write(found)
    maps = tmp_path / "report/maps/length"
    assert np.asarray(Image.open(maps / "deep/<b>1.png.png")).mean() == 120
    assert (maps / "outside.png.png").exists() and "map" not in as_csv(found)
    page = (tmp_path / "report/index.html").read_text()
    assert 'src="maps/length/deep/%3Cb%3E1.png.png"' in page and "a &lt;b&gt;" in page


def test_what_a_metric_notes_is_told_once_everywhere(folder, tmp_path):
    class Noting(Length):
        seen = 0

        def score(self, batch):
            self.seen += len(batch.names)
            return super().score(batch)

        @property
        def notes(self):
            return (f"length: {self.seen} <prompts>",)

    report = Report(tmp_path / "report")
    found = assess(gather([str(folder)]), [Noting(lambda image: image.mean(2))], 2, prompts=["a"] * 5, thumbnails=True,
                   quiet=True)
    report.write(found)
    assert found.notes == json.loads(as_json(found))["notes"] == ["length: 4 <prompts>"]
    assert (tmp_path / "report/index.html").read_text().count("<p>length: 4 &lt;prompts&gt;</p>") == 1


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    peaks = []
    for count in (20, 120):
        for index in range(count):
            picture(tmp_path / f"{count}/{index}.png", index, (256, 256))
        images = gather([str(tmp_path / str(count))])
        tracemalloc.start()
        assess(images, [Brightness()], batch=4, workers=1, quiet=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_names_with_digits_of_every_kind(tmp_path):
    """Superscripts are digits to Python, but no numbers."""
    for name in ("1²3.png", "٣.png", "10.png"):
        picture(tmp_path / name, 5)
    assert len(gather([str(tmp_path)]).names) == 3


def test_a_link_to_nothing_is_told(tmp_path):
    picture(tmp_path / "a.png", 5)
    (tmp_path / "b.png").symlink_to("absent")
    (tmp_path / "c.png").symlink_to("a.png")
    found = assess(gather([str(tmp_path)]), [Brightness()], quiet=True)
    assert len(found.rows) == 2 and "b.png: cannot be read" in found.failed[0]


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match="a.jpg: cannot be read .*none of 1 pictures could be scored"):
        assess(gather([str(tmp_path)]), [Brightness()], quiet=True)


def test_what_is_gathered(folder, tmp_path):
    """Folders and files together; a file given by name counts whatever its suffix."""
    picture(tmp_path / "odd.png", 5)
    odd = (tmp_path / "odd.png").rename(tmp_path / "odd.data")
    found = assess(gather([str(odd), str(folder / "deep"), str(odd)]), [Brightness()], quiet=True)
    assert sorted(row["brightness"] for row in found.rows) == [5, 120]
    with pytest.raises(UserError, match="absent: no such file or folder"):
        gather([str(tmp_path / "absent")])
    with pytest.raises(UserError, match="holds no picture"):
        empty = tmp_path / "empty"
        empty.mkdir()
        gather([str(empty)])


@pytest.fixture(params=[False, True], ids=["trained", "random"])
def done(request, folder):
    return assess(gather([str(folder)]), [Brightness(request.param)], thumbnails=True, quiet=True)


def test_table_record_and_lines_say_where_weights_are_random(done):
    random, name = done.metrics[0].random, "brightness" + " (random weights)" * done.metrics[0].random
    rows = list(csv.DictReader(io.StringIO(as_csv(done))))
    assert [float(row[name]) for row in rows] == [20, 200, 250, 120]
    record = json.loads(as_json(done))
    assert record["metrics"]["brightness"]["mean"] == 147.5 and record["images"][0]["brightness_high"] == 0.75
    assert len(record["failed"]) == 1
    lines = list(command.lines(done))
    assert "brightness 20.00" in lines[0] and "dark" in lines[0] and lines[-1].startswith("4 scored, 1 skipped")
    assert [("(random weights)" in line) for line in lines[:-1]] == [random] * 5


def test_the_page_is_complete_and_escapes_names(done, tmp_path):
    Report(tmp_path / "report").write(done)
    text = (tmp_path / "report/index.html").read_text()
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["index.html", "scores.csv", "scores.json"]
    order = re.findall(r'class="name soft">\d+\. ([^ ]+) \(', text)
    assert order == ["a.gif", "10.png", "deep/&lt;b&gt;1.png", "2.png"]
    assert text.count("data:image/jpeg;base64,/9j/") == 4 and "<svg" in text and "broken.jpg" in text
    # Beside the namespace of SVG there is no address in it: the page asks no network.
    assert re.findall(r'https?://[^"\s]+', text) == ["http://www.w3.org/2000/svg"]
    assert (text.count("(random weights)") > 4) == done.metrics[0].random


def test_names_that_are_no_text(tmp_path):
    """A file name may hold any bytes."""
    (tmp_path / "a").mkdir()
    path = (bytes(tmp_path) + b"/a/\xff.png").decode("utf-8", "surrogateescape")
    Image.new("RGB", (4, 4)).save(path)
    found = assess(gather([str(tmp_path / "a")]), [Brightness()], thumbnails=True, quiet=True)
    Report(tmp_path / "report").write(found)
    "\n".join(command.lines(found)).encode()
    assert found.rows[0]["image"] == "\\udcff.png"


@pytest.mark.parametrize("argv, message", [
    (["x", "--metrics", "asthetic"], "unknown metric 'asthetic' (did you mean 'aesthetic'?)"),
    (["x", "--batch", "0", "--random-weights"], "--batch 0: must be at least 1"),
    (["x", "--output", "a.txt", "--random-weights"], "--output a.txt: the name must end in .json or .csv"),
    (["x", "--output", "no/such/a.csv", "--random-weights"], "--output no/such/a.csv: cannot be written; name a file in a folder"),
    (["x", "--output", "folder.json", "--random-weights"], "--output folder.json: cannot be written"),
    (["x", "--report", "file", "--random-weights"], "--report file: is not a folder"),
    (["no/such/folder", "--random-weights"], "no/such/folder: no such file or folder"),
    (["x"], "no metric's weights are given: give --aesthetic-weights ADAPTER for aesthetic, or --labels DIR and "
            "--segmenter FILE for mask_accuracy, or "),
    (["pictures", "--metrics", "mask_accuracy", "--backend", "torch"], "--labels is missing: label maps with"),
    (["pictures", "--prompts", "p.csv", "--random-weights"], "p.csv: cannot be read")])
def test_mistakes(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.json").mkdir()
    Path("file").touch()
    picture(Path("pictures/a.png"), 1)
    assert cli.main(["assess", *argv]) == 2
    assert message in capsys.readouterr().err


def test_every_value_counts_in_the_histogram():
    values = [1.0, 1.0, 2.0, 10.0]
    counts = re.findall(r": (\d+)</title>", histogram("t", "x", values, bins=9))
    assert list(map(int, counts)) == [2, 1, 0, 0, 0, 0, 0, 0, 1]
    assert sum(map(int, re.findall(r": (\d+)</title>", histogram("t", "x", [3.0] * 5)))) == 5


@pytest.mark.parametrize("low, high, ticks", [(1, 10, "1.0 3.2 5.5 7.8 10.0"), (0, 0.0142, "0.000 0.004 0.007 0.011 0.014"),
                                              (0, 400, "0 100 200 300 400")])
def test_the_ticks_of_a_histogram_can_be_told_apart(low, high, ticks):
    found = re.findall(r'text-anchor="middle">([^<]+)<', histogram("t", "x", [low, high]))
    assert found == ticks.split()


def test_every_metric_of_assess_has_its_module():
    for info in METRICS:
        assert info.better in ("higher", "lower") and info.span[0] < info.span[1]
        assert info.produces in ("score", "distribution", "map")
        assert (info.name in ASSESSED) == (info.command == "assess")
    flags = [name for metric in ASSESSED.values() for option in metric.INFO.options
             for name in (option.name, *option.aliases)]
    assert len(set(flags)) == len(flags)
    for name, metric in ASSESSED.items():
        assert callable(metric.load) and name == metric.INFO.name and metric.INFO.options


@pytest.mark.parametrize("argv, names", [
    (["--aesthetic-weights", "a"], ["aesthetic"]), (["--segmenter", "s", "--labels", "l"], ["mask_accuracy"]),
    (["--segmenter", "s", "--aesthetic-weights", "a"], ["aesthetic", "mask_accuracy"]),
    (["--random-weights"], ["aesthetic"]), (["--random-weights", "--labels", "l"], ["aesthetic", "mask_accuracy"]),
    (["--random-weights", "--segmenter", "s"], ["mask_accuracy"]),
    (["--metrics", "mask_accuracy,aesthetic,mask_accuracy"], ["mask_accuracy", "aesthetic"])])
def test_metrics_are_those_whose_weights_are_given(argv, names):
    assert command.chosen(cli.JITTWIN.parser_of("assess").parse_args(["x", *argv])) == names


SCRIPTS = Path(__file__).parents[2] / "scripts"
INFERENCE = {"images", "--threads", "--batch_size", "--num_workers", "--show_distribution", "--no-show-distribution",
             "--output", "--original-output", "--max-pixels", "--model", "--debug", "--help"}


@pytest.mark.parametrize("name, flags", [
    ("inference_aesthetic_lora", INFERENCE | {"--weights", "--lora_weights", "--device", "--dtype", "--backend",
                                              "--random-weights"}),
    ("inference_aesthetic_onnx", INFERENCE),
    ("export_onnx", {"--weights", "--model", "--output", "--output-dir", "--opset", "--all", "--export-aesthetic",
                     "--export-siglip", "--export-vision", "--export-text", "--backend", "--dtype", "--random-weights",
                     "--debug", "--help"})])
def test_the_scripts_take_the_originals_flags(name, flags, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(f"scripts_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    actions = module.build_parser()._actions
    assert {text for action in actions for text in action.option_strings or [action.dest]} == flags | {"-h"}


class Rated(Brightness):
    """A brightness from 1 to 10 and ten fractions, like the aesthetic score."""

    info = Info("aesthetic", "assess", "", "higher", (1, 10), "none")
    profile = tuple(f"aesthetic_p{rating}" for rating in range(1, 11))

    def score(self, batch):
        return Scores([{"aesthetic": 1 + 9 * float(x.mean()) / 255, **dict.fromkeys(self.profile[:8], 0.003),
                        "aesthetic_p9": 0.076, "aesthetic_p10": 0.9} for x in batch.pixels])


def test_the_originals_lines(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    output = importlib.import_module("aesthetic_output")
    for name, grey in (("1.png", 128), ("2.png", 255), ("10.png", 0)):
        Image.fromarray(np.full((4, 4, 3), grey, np.uint8)).save(tmp_path / name)
    (tmp_path / "3.png").write_bytes(b"no picture")
    images, metric = gather([str(tmp_path)]), Rated()
    found = assess(images, [metric], quiet=True)
    lines = list(output.original_lines(images, found, metric, True))
    bars = [*(f"  {rating:2d}:  0.3% " for rating in range(1, 9)), "   9:  7.6% ███", f"  10: 90.0% {'█' * 36}"]
    assert lines[:15] == ["", "总共找到 4 个图片文件", "", f"[1/4] {tmp_path}/1.png", "  分数: 5.52 - 良好 (Good)",
                          "  评分分布:", *bars[:9]]
    assert lines[15] == bars[9] and lines[29].startswith(f"[3/4] {tmp_path}/3.png: 处理失败 - cannot be read (")
    assert lines[17] == "  分数: 10.00 - 优秀 (Excellent)" and lines[31] == "  分数: 1.00 - 差 (Poor)"
    assert lines[43:45] == ["", "=" * 50] and lines[45] == "处理完成: 成功 3/4 张图片"
    assert re.fullmatch(r"总耗时: \d+\.\d\d 秒", lines[46])
    assert lines[47:] == ["平均分数: 5.51", "=" * 50, "", "按美学评分排序:", f"  10.00 - {tmp_path}/2.png",
                          f"  5.52 - {tmp_path}/1.png", f"  1.00 - {tmp_path}/10.png"]
    short = list(output.original_lines(images, found, Rated(random=True), False))
    assert "  分数: 5.52 (random weights) - 良好 (Good)" in short and not any("█" in line for line in short)


@pytest.mark.parametrize("span, shown, digits", [
    ((1, 10), "1 to 10", 2), ((-1, 1), "-1 to 1", 4), ((0, 2.5), "0 to 2.5", 4), ((0, 1), "0 to 1", 4),
    ((-float("inf"), float("inf")), "unbounded", 2), ((0, float("inf")), "at least 0", 2)])
def test_the_range_of_a_metric_in_words(span, shown, digits):
    info = Info("x", "assess", "", "higher", span, "none")
    assert (info.range, info.digits) == (shown, digits)
