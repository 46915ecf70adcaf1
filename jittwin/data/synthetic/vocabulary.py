"""Tokenizers without files, for networks that are trained from nothing on the built-in data, or not at all."""
import string

from tokenizers.pre_tokenizers import ByteLevel

from jittwin.data.synthetic.prompted import words
from jittwin.text import BERT, Tokenizer, TokenizerKind


def built_in_tokenizer(kind: TokenizerKind = BERT) -> Tokenizer:
    """Its vocabulary is the words of the built-in data, and letters, digits and ASCII punctuation for all others.

    kind: of WordPiece, or CLIP, which then splits every text into its bytes.
    """
    if kind.merges:
        letters = sorted(ByteLevel.alphabet())
        tokens = dict.fromkeys((*letters, *(f"{letter}</w>" for letter in letters), kind.start, kind.end))
        return Tokenizer(kind, {token: number for number, token in enumerate(tokens)})
    letters = [*string.ascii_lowercase, *string.digits]
    special = (kind.pad, kind.unknown, kind.start, kind.end, *kind.also)
    tokens = dict.fromkeys((*special, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *words()))
    return Tokenizer(kind, {token: number for number, token in enumerate(tokens)})
