"""L7 and L8: what differs in a batch is found, and only flips at a boundary are excused."""
import io

import numpy as np
import pytest
from PIL import Image

from parity.cases import find
from parity.cases.apf_gan_data import encoded
from parity.cases.text import TEXTS
from parity.levels import data, metrics
from parity.runner import Step
from parity.workers.oracle import Comparison

DATA = find("apf_gan.data")
TOKENIZERS = find("tokenizers")


class Recorded:
    """Stands for the workers: one result for both, which one of them may have changed."""

    def __init__(self, arrays, names, change=None):
        self.arrays, self.names, self.change = arrays, names, change

    def both(self, function, arrays, **arguments):
        changed = {name: a.copy() for name, a in self.arrays.items()}, dict(self.names)
        if self.change:
            self.change(*changed)
        return {"torch": (self.arrays, self.names), "jittor": changed}


@pytest.fixture(scope="module")
def batches(twins):
    return twins.both(data.delivered, {
        f"inputs/{path}": content for path, content in encoded(6).items()},
        case=DATA.reference(), mode="eval files")["torch"]


def judged(batches, change=None):
    return data.batches(DATA, "tiny", "eval files", Recorded(*batches, change))


def test_batches_are_what_training_is_given(batches):
    arrays, names = batches
    image, label = arrays["philox 1: image 0, 1 threads"], arrays["philox 1: label 0, 1 threads"]
    assert image.shape == (2, 3, 64, 64) and image.dtype == np.float32 and np.abs(image).max() <= 1
    assert label.shape == (2, 64, 64) and label.dtype == np.uint8 and len(np.unique(label)) > 1
    assert not np.array_equal(arrays["philox 1: order"], arrays["philox 2: order"])
    assert names["None 1: name 0, 1 threads"] == ["0", "1"]
    assert not any("0, 3 threads" in name for name in arrays)      # those begin at the second batch
    assert judged(batches).passed


def ulps(count):
    def change(arrays, names):
        image = arrays["philox 2: image 1, 3 threads"]
        for _ in range(count):
            image[0, 0, 5, 5] = np.nextafter(image[0, 0, 5, 5], np.float32(2))
    return change


def label(arrays, names):
    arrays["None 1: label 2, 1 threads"][0, 3, 3] += 1


def order(arrays, names):
    arrays["reference 2: order"][:2] = arrays["reference 2: order"][:2][::-1].copy()


def batch_left_out(arrays, names):
    del arrays["None 1: image 2, 1 threads"]


def other_sample(arrays, names):
    names["philox 1: name 1, 3 threads"] = ["0", "0"]


def wider(arrays, names):
    arrays["None 1: label 0, 1 threads"] = arrays["None 1: label 0, 1 threads"].astype(np.int32)


@pytest.mark.parametrize("change, passes", [
    (ulps(1), True), (ulps(2), False), (label, False), (order, False), (batch_left_out, False),
    (other_sample, False), (wider, False)])
def test_what_differs_in_a_batch_is_found(batches, change, passes):
    assert judged(batches, change).passed == passes


def test_the_files_go_through_every_decoder():
    modes = {path: Image.open(io.BytesIO(content.tobytes())).mode for path, content in encoded(6).items()}
    assert {mode for path, mode in modes.items() if path.startswith("imgs/")} == {"RGB", "L", "RGBA", "P", "CMYK"}
    assert {mode for path, mode in modes.items() if path.startswith("labels/")} == {"L", "P", "RGB"}
    assert {path.split(".")[1] for path in modes} == {"jpg", "png"}


@pytest.mark.parametrize("name", ["fake", "label"])
def test_augmentation_that_differs_is_found(name):
    truth = {kind: np.linspace(0, 1, 50).reshape(5, 10).round(1) for kind in ("real", "fake", "label")}
    zero = dict.fromkeys(truth, 0.0)
    candidate = {kind: a.astype(np.float32) for kind, a in truth.items()}

    class Workers:
        def compare(self, function, arrays, **arguments):
            return Comparison(candidate, truth, zero, zero, {})

        @property
        def torch(self):
            return self

        def call(self, function, **arguments):
            return {}, {}

    def row():
        return data.outputs(find("apf_gan.augment"), "tiny", "train crop", Workers())

    assert row().passed
    candidate[name][1, 1] += np.float32(1e-6 if name == "fake" else 1e-9) + np.spacing(candidate[name][1, 1])
    assert not row().passed and row().worst == name


# ---- tokens -------------------------------------------------------------------------

@pytest.fixture(scope="module")
def ids(twins):
    """The inputs of one mode, what transformers makes of them, and what the Jittor worker was given."""
    files = {f"inputs/{name}": a for name, a in TOKENIZERS.inputs("tiny", "eval clip").items()}
    arguments = {"case": TOKENIZERS.reference(), "mode": "eval clip"}
    return (twins.torch.call(data.expected_tokens, files, **arguments)[0],
            twins.jittor.call(data.tokenized, files, **arguments)[0])


def judged_tokens(ids, change=lambda seen: None):
    class Workers:
        @property
        def torch(self):
            return self

        def call(self, function, arrays, **arguments):
            return ids[0], {}

        def both(self, function, arrays, **arguments):
            seen = {name: a.copy() for name, a in ids[1].items()}
            change(seen)
            return {"torch": (ids[1], {}), "jittor": (seen, {})}

    return data.tokens(TOKENIZERS, "tiny", "eval clip", Workers())


def test_ids_are_those_of_transformers(ids):
    assert judged_tokens(ids).passed and judged_tokens(ids).detail["count"] == 8
    assert ids[0]["ids 16"].shape == (len(TEXTS), 16) and ids[0]["ids None"].shape[1] == 77
    assert len(np.unique(ids[0]["ids None"])) > 100 and ids[0]["mask 16"].min() == 0


def other_id(seen):
    seen["ids 16"][3, 4] += 1


def padding_counts(seen):
    seen["mask None"][:] = 1


def longer_ids(seen):
    seen["ids None"] = seen["ids None"].astype(np.int64)


def one_text_less(seen):
    seen["ids 16"] = seen["ids 16"][1:]


def no_mask(seen):
    del seen["mask 16"]


@pytest.mark.parametrize("change", [other_id, padding_counts, longer_ids, one_text_less, no_mask])
def test_ids_that_differ_are_found(ids, change):
    assert not judged_tokens(ids, change).passed


# ---- L8 ------------------------------------------------------------------------------

EXACT = np.array([10.5, 20.0001, 29.9999, 254.99999, 0.0])


@pytest.mark.parametrize("seen, margin, flips, passes", [
    ([10, 20, 29, 254, 0], 1e-3, 0, True),       # rounded down
    ([10, 19, 30, 255, 0], 1e-3, 3, True),       # over boundaries that are near
    ([10, 19, 29, 254, 0], 1e-5, 0, False),      # too far from one for this error
    ([11, 20, 29, 254, 0], 1e-3, 0, False),      # no boundary near
    ([10, 21, 29, 254, 0], 1e-3, 0, False),      # the wrong side
])
def test_a_flip_is_excused_only_at_a_boundary(seen, margin, flips, passes):
    verdict, count = metrics.rounded(np.uint8(seen), EXACT, margin)
    assert (verdict.passed, count) == (passes, flips)
    assert metrics.rounded(np.uint8(seen[:4]), EXACT, margin)[0].reason


def test_whole_numbers_are_equal_and_others_within_two_units():
    def judged(count, score):
        truth = {"count": np.array([7]), "score": np.array([1.0])}
        found = {"count": np.array([count]), "score": np.array([score], np.float32)}
        verdicts, flips = metrics.judged(Comparison(found, truth, dict.fromkeys(truth, 0.0),
                                                    dict.fromkeys(truth, 0.0), {}))
        assert not flips
        return [name for name, verdict in verdicts.items() if not verdict.passed]

    two = 1 + 2 * 2.0 ** -23
    assert judged(7, 1.0) == judged(7, two) == []
    assert judged(8, two + 2.0 ** -23) == ["count", "score"]


def test_flips_of_pictures_are_counted_and_few(rows_of):
    row, = rows_of(Step("L8", find("apf_gan.pictures"), "tiny", "eval"))
    assert row.passed, row.detail["reason"]
    assert row.detail["counted"]["picture"] == 4 * 128 * 192 * 3
    assert row.detail["flips"]["picture"] < 1e-3 * row.detail["counted"]["picture"]
