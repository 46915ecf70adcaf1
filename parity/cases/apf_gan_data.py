"""Cases of what comes before and after the APF-GAN networks: batches, augmentation, and the pictures written."""
import io
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from jittwin import imaging
from jittwin.classes import PALETTE
from jittwin.data.landscape import LandscapeDataset
from jittwin.data.loader import SHUFFLES, Loader
from jittwin.data.synthetic.landscapes import SyntheticLandscapes, render
from jittwin.draws import Draws
from jittwin.generate import Sampler
from parity.case import Case
from parity.cases.apf_gan import ApfGan, label_maps
from parity.workers.side import group

WIDTH, HEIGHT, SIDE = 88, 72, 64      # of the scenes and of the square crop, pixels
SCENES = 6


class Data(Case):
    """Batches of built-in scenes, and of a folder of picture files that use every decoder."""
    name = "apf_gan.data"
    modes = ("eval scenes", "eval files")
    levels = ("L7",)

    def inputs(self, size, mode):
        return {} if mode == "eval scenes" else encoded(SCENES)

    def dataset(self, folder: str, mode: str):
        transform = {"crop_size": SIDE, "aspect_ratio": 1.0, "vertical_crop": "random"}
        if mode == "eval scenes":
            return SyntheticLandscapes(SCENES, WIDTH, HEIGHT, seed=4, **transform)
        return LandscapeDataset(folder, load_size=SIDE + 16, **transform)

    def delivered(self, side, inputs, mode):
        """Two epochs in every kind of order, as tensors of the framework: with one thread, and with three threads from
        the second batch on.

        Returns the arrays "<order> <epoch>: order" and "<order> <epoch>: <array> <batch>, <threads> threads", and the
        samples' names by the keys of the latter kind.
        """
        found, names = {}, {}
        with tempfile.TemporaryDirectory() as folder:
            for path, content in inputs.items():
                Path(folder, path).parent.mkdir(exist_ok=True)
                Path(folder, path).write_bytes(content.tobytes())
            dataset = self.dataset(folder, mode)
            for shuffle in SHUFFLES:
                for epoch in (1, 2):
                    found[f"{shuffle} {epoch}: order"] = Loader(dataset, 2, 3, shuffle=shuffle).order(epoch)
                    for threads, start in ((1, 0), (3, 1)):
                        loader = Loader(dataset, 2, 3, threads, shuffle=shuffle)
                        for number, batch in enumerate(loader.epoch(epoch, start), start):
                            place = f"{number}, {threads} threads"
                            names[f"{shuffle} {epoch}: name {place}"] = batch.pop("name")
                            found |= {f"{shuffle} {epoch}: {key} {place}": side.host(side.tensor(a))
                                      for key, a in batch.items()}
        return found, names


def encoded(count: int) -> dict[str, np.ndarray]:
    """The files of a small data set by path, as arrays of bytes: JPEG and PNG, in colour and grey, with palette and
    alpha."""
    files = {}
    for index in range(count):
        picture, label = (Image.fromarray(a) for a in render(index, WIDTH, HEIGHT, 9))
        picture = picture.convert(("RGB", "L", "RGB", "RGBA", "P", "CMYK")[index])
        if index == 1:
            label.putpalette(np.asarray(PALETTE, np.uint8).tobytes())
        if index == 2:
            label = Image.merge("RGB", [label] * 3)
        suffix = "png" if picture.mode in ("RGBA", "P") else "jpg"
        for path, image in ((f"imgs/{index}.{suffix}", picture), (f"labels/{index}.png", label)):
            buffer = io.BytesIO()
            image.save(buffer, imaging.format_of(path))
            files[path] = np.frombuffer(buffer.getvalue(), np.uint8)
    return files


class Augmentation(Case):
    """DiffAugment with given random numbers; the mode names the policies in their order."""
    name = "apf_gan.augment"
    modes = ("train color", "train crop", "train translation", "train color crop translation")
    levels = ("L2", "L4", "L7")
    differentiable = ("real", "fake", "label")
    exact = ("label",)
    seed = 21

    def build(self, side, size, mode):
        return side.Module()

    def inputs(self, size, mode):
        label = Draws(2).integers("label", 0, 2, (4, 5, 7)).repeat(4, 1).repeat(4, 2)
        return {**{kind: Draws(2).normal(kind, (4, 3, 20, 28)) for kind in ("real", "fake")},
                "label": np.moveaxis(np.eye(3, dtype=np.float32)[label], -1, 1)}

    def run(self, side, module, inputs, mode):
        augment = side.twin("apf_gan.augment").diff_augment
        kinds = ("real", "fake", "label")
        results = augment(*(inputs[kind] for kind in kinds), mode.split()[1:], Draws(self.seed))
        return dict(zip(kinds, results, strict=True))


class Pictures(ApfGan):
    """The uint8 pictures of `jittwin generate`, from label maps and two seeds of noise."""
    name = "apf_gan.pictures"
    sizes = ("tiny",)
    modes = ("eval",)
    levels = ("L8",)

    def build(self, side, size, mode):
        networks = side.Module()
        for net, part in (("E", "encoder"), ("G", "generator")):
            setattr(networks, net, self.network(side, part, size, "eval noise"))
        return networks

    def inputs(self, size, mode):
        return {"label": label_maps(self.config(size), self.batch(size))}

    def measured(self, side, arrays, size, mode):
        """"picture" as it is written, and "exact picture", the same from 0 to 255 before it is rounded down."""
        state = group(arrays, "weights")
        weights = {net: {key[2:]: a for key, a in state.items() if key.startswith(f"{net}.")} for net in "EG"}
        labels, handed, to_uint8 = arrays["inputs/label"], [], imaging.to_uint8

        def keep(picture):
            handed.append(picture)
            return to_uint8(picture)

        with mock.patch.object(imaging, "to_uint8", keep):
            sampler = Sampler(side.backend, self.config(size), weights)
            written = [picture for _, pictures in sampler([f"map {n}" for n in range(len(labels))], labels, range(2))
                       for picture in pictures]
        exact = np.clip((np.stack(handed).transpose(0, 2, 3, 1) + 1) / 2 * 255, 0, 255)
        return {"picture": np.stack(written), "exact picture": exact}


CASES = (Augmentation(), Data(), Pictures())
