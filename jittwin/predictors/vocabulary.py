"""The tokenizer that goes with a file of weights."""
import os
from pathlib import Path

from jittwin.errors import UserError
from jittwin.text import Tokenizer, TokenizerKind, load_tokenizer

ABOVE = 4       # folders above a checkpoint's file that may hold a run's vocabulary


def vocabulary(weights: Path, folder: str | os.PathLike | None, kind: TokenizerKind, known: int, fix: str,
               at_most: bool = False) -> Tokenizer:
    """The tokenizer in `folder`; for None the one beside the weights, or in one of the folders above them.

    weights: their file. known: tokens that the network has embeddings of. fix: the flag that names a folder, with an
    example of one, for messages. at_most: a vocabulary beside the weights may be smaller, since training may leave some
    of the embeddings unused. UserError: no such folder, no vocabulary, one of another size or kind.
    """
    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"{os.fspath(folder)}: is not a folder; name the one that holds the vocabulary, "
                        f"{' and '.join(kind.files)} or tokenizer.json: {fix}")
    where = beside(weights, kind, fix) if folder is None else Path(folder)
    found = load_tokenizer(where, kind)
    if len(found) > known or len(found) < known and not (at_most and folder is None):
        raise UserError(f"{where}: its vocabulary has {len(found)} tokens, and the text encoder of {weights} knows "
                        f"{known}; give its own: {fix}")
    return found


def beside(weights: Path, kind: TokenizerKind, fix: str) -> Path:
    """The folder of the vocabulary that goes with a file of weights. UserError: there is none."""
    names = ("tokenizer.json", *kind.files)
    own = weights.absolute()
    for folder in ((own,) if own.is_dir() else ()) + tuple(own.parents[:ABOVE]):
        if any((folder / name).is_file() for name in names):
            return folder
    raise UserError(f"{weights}: no vocabulary ({' or '.join(names)}) lies beside it or in its run; name the folder "
                    f"that holds it: {fix}")
