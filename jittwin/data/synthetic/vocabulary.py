"""A BERT tokenizer without files, for networks that are trained from nothing on the built-in data."""
import string

from jittwin.data.synthetic.prompted import words
from jittwin.text import BERT, Tokenizer, TokenizerKind


def built_in_tokenizer(kind: TokenizerKind = BERT) -> Tokenizer:
    """Its vocabulary is the words of the built-in data, and letters, digits and ASCII punctuation for all others.

    kind: of WordPiece.
    """
    letters = [*string.ascii_lowercase, *string.digits]
    special = (kind.pad, kind.unknown, kind.start, kind.end, *kind.also)
    tokens = dict.fromkeys((*special, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *words()))
    return Tokenizer(kind, {token: number for number, token in enumerate(tokens)})
