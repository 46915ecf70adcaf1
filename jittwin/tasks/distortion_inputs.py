"""What training of the detector of distortion starts from: the first weights, the tokenizer and the data."""
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jittwin.data.evalmuse import PARTS, Sample, hold_out
from jittwin.data.evalmuse_files import negatives, open_training, pseudo_labels, stored_maps
from jittwin.data.synthetic.distorted import CHOICES, SyntheticEvalMuse
from jittwin.data.synthetic.vocabulary import built_in_tokenizer
from jittwin.errors import UserError
from jittwin.models import florence2
from jittwin.models.catalog import BY_NAME
from jittwin.models.conversion import Source
from jittwin.models.distortion import SIZES, TEXT_LENGTHS, TRUNK, DistortionConfig, encode_prompts, sized
from jittwin.models.florence2 import Florence2Config
from jittwin.predictors.distortion import detector_file, small_trunk
from jittwin.predictors.vocabulary import vocabulary
from jittwin.text import BART, Tokenizer, Tokens, load_tokenizer
from jittwin.weights import content_hash
from jittwin.weights.initial import initial_weights
from jittwin.weights.lazy import LazyArrays

FIX = "tokenizer=FOLDER, such as facebook/bart-large or Florence-2's own"


@dataclass(frozen=True)
class Start:
    """A detector before training.

    arrays: its first weights, without LoRA. hashes: of the files it comes from, by name.
    """

    model: DistortionConfig
    tokenizer: Tokenizer
    arrays: LazyArrays
    hashes: Mapping[str, str]


def open_start(config, backend) -> Start:
    """The detector that a jittwin.tasks.distortion.Config describes.

    Files are read when the arrays are loaded. UserError: a file is missing or of another network; no file although
    `random_model` is false; a tokenizer that does not fit; sizes that do not go together.
    """
    if config.weights:
        start = from_detector(config)
    else:
        start = from_trunk(config, backend)
    hashed = hashlib.sha256(start.tokenizer.splitter.to_str().encode()).hexdigest()
    return replace(start, hashes={**start.hashes, "vocabulary": hashed})


def from_detector(config) -> Start:
    """From a detector that was trained before. Its arrays decide its heads and sizes."""
    conversion = BY_NAME["distortion"].conversion
    path = detector_file(config.weights)
    file = conversion.open(path)
    found = conversion.infer(file.arrays.shapes, file)
    for name in ("score_head", "mask_head"):
        if getattr(found, name) != getattr(config, name):
            raise UserError(f"{config.weights}: its {name} is {getattr(found, name)}, but {name}="
                            f"{getattr(config, name)}: set {name}={getattr(found, name)}, or give another file")
    side = config.side or found.image_size
    model = described(config, found.trunk, side, found.head_width)
    known = vocabulary(path, config.tokenizer, BART, found.trunk.text.vocab_size, FIX, at_most=True)
    arrays = file.arrays.cast(np.float32)
    arrays = arrays.renamed({key: key for key in arrays if not key.endswith("num_batches_tracked")})
    return Start(model, known, arrays, {"weights": content_hash(arrays)})


def from_trunk(config, backend) -> Start:
    """From Florence-2 and untrained heads, or from nothing."""
    if not config.trunk and not config.random_model:
        raise UserError("trunk is missing: set trunk=FOLDER, a hub folder such as microsoft/Florence-2-large, or "
                        "random_model=true to train it from nothing; preset=tiny does so with a small one")
    file, hashes = None, {}
    side, width = SIZES[config.size]
    if config.trunk:
        file = BY_NAME["florence2"].conversion.open(config.trunk)
        trunk = florence2.infer_config(file.arrays.shapes, file)
        known = open_vocabulary(config, file, trunk)
    else:
        trunk = florence2.PRESETS[config.size]
        known = load_tokenizer(config.tokenizer, BART) if config.tokenizer else built_in_tokenizer(BART)
        if config.size in ("small", "tiny"):
            trunk = small_trunk(known, config.size)
        elif len(known) > trunk.text.vocab_size:
            raise UserError(f"{config.tokenizer}: its vocabulary has {len(known)} tokens, and the trunk knows "
                            f"{trunk.text.vocab_size}: give {FIX}")
    model = described(config, trunk, config.side or min(side, trunk.largest_side), config.head_width or width)
    arrays = initial_weights("distortion", backend.state_shapes("distortion", model), config.seed)
    if file:
        given = file.arrays.cast(np.float32)
        hashes["trunk"] = content_hash(given)
        arrays = joined(arrays, given.renamed({TRUNK + key: key for key in given}))
    return Start(model, known, arrays, hashes)


def described(config, trunk: Florence2Config, side: int, width: int) -> DistortionConfig:
    """UserError: sizes that do not go together."""
    try:
        return sized(trunk, config.score_head, config.mask_head, side, config.text_mode, config.text_length, width)
    except ValueError as error:
        raise UserError(f"settings of the detector: {error}") from error


def open_vocabulary(config, file: Source, trunk: Florence2Config) -> Tokenizer:
    """That of the folder `tokenizer`, else the one beside the trunk's weights."""
    path = file.folder.path if file.folder else Path(file.where)
    return vocabulary(path, config.tokenizer, BART, trunk.text.vocab_size, FIX, at_most=True)


def joined(arrays: LazyArrays, instead: LazyArrays) -> LazyArrays:
    """The arrays, those of `instead` in place of others with the same names."""
    return LazyArrays(arrays.shapes | instead.shapes,
                      lambda key: instead[key] if key in instead else arrays[key], instead.source)


def encode(start: Start, prompts: Sequence[str]) -> tuple[Tokens, tuple[str, ...]]:
    """(token ids of the instruction with each prompt, notes).

    UserError: texts that have no room in the trunk's table of positions in the mode "reference".
    """
    model = start.model
    tokens = encode_prompts(model, start.tokenizer, prompts)
    if not tokens.truncated:
        return tokens, ()
    text = f"{len(tokens.truncated)} of {len(prompts)} instructions have more than {model.text_length} tokens"
    whole = TEXT_LENGTHS["reference"]
    if model.text_mode == "reference" and model.text_length < whole:
        raise UserError(f"{text}, such as that with {prompts[tokens.truncated[0]][:40]!r}: text_mode=reference cuts "
                        f"none below {whole}, and this trunk has {model.most_text} positions beside the "
                        f"{model.image_tokens} of a picture; set text_mode=fast, which cuts texts, a smaller side, "
                        "or another trunk")
    return tokens, (f"{text} and lose their ends",)


def open_data(config, data_dir: str | None, side: int) -> tuple[list[Sample], list[Sample], dict[str, str], tuple]:
    """(samples to train on, samples to validate with, hashes of the files, notes).

    side: of the network's input in pixels. UserError: no such data set, or a part without pictures.
    """
    hashes, notes = {}, ()
    if data_dir is None:
        if config.negatives or config.pseudo_labels:
            name = "negatives" if config.negatives else "pseudo_labels"
            raise UserError(f"{name}={getattr(config, name)} is of a data set: give it with --data DIR")
        samples = SyntheticEvalMuse.for_side(config.synthetic_images, side, config.seed,
                                             CHOICES[config.distortions]).samples
    else:
        samples, problems, notes = open_training(data_dir)
        if problems:
            notes += (f"{data_dir}: {len(problems)} regions or prompts are unusual, such as {problems[0]}; "
                      "`jittwin prepare evalmuse` lists them",)
        path = stored_maps(data_dir) or Path(data_dir) / PARTS[0] / "train_info.json"
        hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    training, held_out = hold_out(samples, config.val_split, config.seed)
    if config.pseudo_labels:
        held_out = pseudo_labels(config.pseudo_labels, data_dir)
        hashes["pseudo_labels"] = hashlib.sha256(Path(config.pseudo_labels).read_bytes()).hexdigest()
    if config.negatives:
        training += negatives(data_dir, config.negatives, config.seed)
    return training, held_out, hashes, tuple(notes)
