"""What a training run of TIER starts from: the networks' first weights, the tokenizer and the data."""
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jittwin.data.aigiqa4k import Aigiqa4k, Row, make_split, of_subset
from jittwin.data.prompted import Source
from jittwin.data.synthetic.prompted import SyntheticAigiqa4k
from jittwin.data.synthetic.vocabulary import built_in_tokenizer
from jittwin.errors import UserError
from jittwin.models import bert
from jittwin.models.catalog import BY_NAME
from jittwin.models.conversion import Source as File
from jittwin.models.tier import REGRESSOR, TEXT, TierConfig, make_config
from jittwin.models.tier_keys import KINDS, side_of, sizes_of
from jittwin.text import Tokenizer, load_tokenizer
from jittwin.weights import content_hash
from jittwin.weights.initial import initial_weights
from jittwin.weights.lazy import LazyArrays

SHORT_TEXTS = 64                # most tokens of a text in the tiny network
BACKGROUND = "last_linear."     # Inception-v4's classifier, whose first class in upstream's file is the background


@dataclass(frozen=True)
class Start:
    """Networks before training.

    model: their sizes. tokenizer: None for a baseline. parts: by the prefix of each network's keys, its first weights
    and patterns of those among them that are not loaded. hashes: of the files, by name.
    """

    model: TierConfig
    tokenizer: Tokenizer | None
    parts: Mapping[str, tuple[LazyArrays, tuple[str, ...]]]
    hashes: Mapping[str, str]


def open_networks(config, backend) -> Start:
    """The networks that a jittwin.tasks.tier.Config describes.

    Files are read when the arrays are loaded. UserError: a file is missing or of another network; a network without
    file although `random_model` is false; a tokenizer that does not fit.
    """
    for key, name, wanted in (("image_weights", "the image encoder", True),
                              ("text_weights", "the text encoder", not config.baseline)):
        if wanted and not getattr(config, key) and not config.random_model:
            raise UserError(f"{key} is missing: set {key}=PATH, the file or hub folder of {name}, or random_model=true "
                            "to train it from nothing; preset=tiny does so with a small one")
    text, tokenizer, text_file = (None, None, None) if config.baseline else open_text(config)
    model = make_config(config.mode, config.backbone, config.size, text or False, config.legacy_pr_batch)
    image_file = None
    if config.image_weights:
        model, image_file = open_image(config, model)
    model = with_side(model, config.side)
    untrained = initial_weights("tier", backend.state_shapes("tier", model), config.seed)
    parts = {prefix: (below(untrained, prefix), ()) for prefix in (REGRESSOR, model.image_prefix, TEXT)
             if prefix != TEXT or text}
    hashes = {}
    for kind, prefix, name, file in (("image", model.image_prefix, model.model, image_file),
                                     ("text", TEXT, "bert", text_file)):
        if file:
            arrays = file.arrays.cast(np.float32)
            parts[prefix] = (arrays.renamed({prefix + key: key for key in arrays}),
                             tuple(prefix + pattern for pattern in BY_NAME[name].conversion.beside))
            hashes[f"{kind}_weights"] = content_hash(arrays)
    if tokenizer:
        hashes["vocabulary"] = hashlib.sha256(tokenizer.splitter.to_str().encode()).hexdigest()
    return Start(model, tokenizer, parts, hashes)


def with_side(model: TierConfig, side: int | None) -> TierConfig:
    """The network for pictures of another size. UserError: its backbone has a size of its own."""
    if side in (None, model.image_size):
        return model
    if model.model == "vit":
        raise UserError(f"side={side}: this vit takes pictures of {model.image_size} pixels: leave side out, or choose "
                        "another backbone")
    return replace(model, image_size=side)


def below(arrays: LazyArrays, prefix: str) -> LazyArrays:
    """The arrays whose keys begin with `prefix`, under the same keys."""
    return arrays.renamed({key: key for key in arrays if key.startswith(prefix)})


def open_text(config) -> tuple[bert.BertConfig, Tokenizer, File | None]:
    """(sizes, tokenizer, opened weights or None) of the text encoder."""
    file = BY_NAME["bert"].conversion.open(config.text_weights) if config.text_weights else None
    folder = config.tokenizer or (file and (file.folder.path if file.folder else Path(file.where).parent))
    tokenizer = load_tokenizer(folder, "bert") if folder else built_in_tokenizer()
    if file:
        sizes = bert.infer_config(file.arrays.shapes, file)
    elif config.size == "tiny":
        sizes = replace(bert.PRESETS["tiny"], vocab_size=len(tokenizer), max_position_embeddings=SHORT_TEXTS)
    else:
        sizes = bert.PRESETS["base-uncased"]
    if len(tokenizer) > sizes.vocab_size:
        raise UserError(f"{folder}: its tokenizer has {len(tokenizer)} tokens, the text encoder {sizes.vocab_size}: "
                        "give tokenizer=FOLDER, the folder of the same model")
    return sizes, tokenizer, file


def open_image(config, model: TierConfig) -> tuple[TierConfig, File]:
    """(`model` with the sizes of the file `image_weights`, the opened file)."""
    file = BY_NAME[model.model].conversion.open(config.image_weights)
    kind = next(module for module, _, _ in KINDS if module.__name__.endswith(f".{model.model}"))
    kind.infer_config(file.arrays.shapes, file)         # its message names the file
    found, image = sizes_of(kind, file.arrays.shapes, not config.baseline)
    if found != config.backbone:
        raise UserError(f"{config.image_weights}: holds a {found}, but backbone={config.backbone}: set "
                        f"backbone={found}, or give the other file")
    if model.model == "inception_v4" and image.classes == model.image.classes + 1:
        file, image = replace(file, arrays=without_background(file.arrays)), replace(image, classes=image.classes - 1)
    return replace(model, image=image, image_size=side_of(found, image)), file


def without_background(arrays: LazyArrays) -> LazyArrays:
    """Inception-v4 without the first class of its classifier, as the original loads it."""
    shapes = {key: (shape[0] - 1, *shape[1:]) if key.startswith(BACKGROUND) else shape
              for key, shape in arrays.shapes.items()}
    return LazyArrays(shapes, lambda key: arrays[key][1:] if key.startswith(BACKGROUND) else arrays[key],
                      arrays.source)


def open_data(config, data_dir: str | None, side: int) -> tuple[Source, list[Row], list[Row]]:
    """(where pictures come from, rows to train on, rows to test on) of PKU-AIGIQA-4K, or of the built-in data.

    side: of the network's input in pixels. UserError: no such data set, an empty subset or part, a row without image
    prompt in the mode "fr".
    """
    if data_dir is None:
        source = SyntheticAigiqa4k.for_side(config.synthetic_images, side, config.seed)
    else:
        source = Aigiqa4k(data_dir)
    return source, *make_split(of_subset(source.rows, config.subset), config.split)


def data_hash(source: Source) -> str:
    """Hash of what a table says of its rows."""
    return hashlib.sha256(repr(source.rows).encode()).hexdigest()
