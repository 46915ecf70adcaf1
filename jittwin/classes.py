"""The 29 classes of the landscape challenge: numbers, names, and the colours that show them."""
import numpy as np

from jittwin.errors import UserError, choose_from

CLASS_NAMES = (
    "mountain", "sky", "water", "sea", "rock", "tree", "earth", "hill", "river", "sand", "land",
    "building", "grass", "plant", "person", "boat", "waterfall", "wall", "pier", "path", "lake", "bridge",
    "field", "road", "railing", "fence", "ship", "house", "other")
CLASSES = len(CLASS_NAMES)
CLASS_NUMBER = {name: number for number, name in enumerate(CLASS_NAMES)}

PALETTE = np.array([
    (120, 110, 130), (135, 190, 235), (90, 205, 215), (20, 70, 140), (105, 100, 95), (25, 95, 40),
    (110, 70, 40), (130, 150, 80), (60, 140, 165), (235, 215, 150), (185, 145, 95), (180, 120, 105),
    (105, 185, 60), (160, 215, 70), (225, 40, 60), (250, 140, 30), (220, 240, 250), (165, 85, 65),
    (145, 105, 65), (205, 185, 155), (45, 100, 190), (150, 130, 170), (220, 195, 60), (80, 80, 85),
    (200, 205, 215), (175, 90, 15), (100, 20, 70), (240, 160, 140), (200, 60, 200)], np.uint8)


IGNORE = "VALUE=CLASS"      # the form of what `ignoring` reads, for help texts


def ignoring(text: str | None) -> np.ndarray | None:
    """The class of each value of a label map, uint8 (256,), from "255=other,254=1"; None without text.

    CLASS is a name or a number. Values that are not named keep their number. UserError: another form.
    """
    if text is None:
        return None
    table, seen = np.arange(256, dtype=np.uint8), set()
    for part in text.split(","):
        value, equals, name = (each.strip() for each in part.partition("="))
        if not equals or not value.isdecimal() or int(value) > 255 or int(value) in seen:
            raise UserError(f"ignore {text}: {part!r} is not {IGNORE} with a value from 0 to 255 that is named once, "
                            "such as 255=other")
        number = int(name) if name.isdecimal() else CLASS_NUMBER.get(name, CLASSES)
        if number >= CLASSES:
            raise UserError(f"ignore {text}: no class {name!r}{choose_from(name, CLASS_NAMES)}, or 0 to {CLASSES - 1}")
        seen.add(int(value))
        table[int(value)] = number
    return table


def colour_label(label: np.ndarray) -> np.ndarray:
    """Class numbers uint8 (H, W) to colours of PALETTE, uint8 (H, W, 3); numbers that are no class become black."""
    table = np.zeros((256, 3), np.uint8)
    table[:len(PALETTE)] = PALETTE
    return table[label]
