"""A BERT tokenizer without files, for networks that are trained from nothing on the built-in data."""
import string

from jittwin.data.synthetic.prompted import words
from jittwin.text import BERT, Tokenizer


def built_in_tokenizer() -> Tokenizer:
    """Its vocabulary is the words of the built-in data, and letters, digits and ASCII punctuation for all others."""
    letters = [*string.ascii_lowercase, *string.digits]
    special = (BERT.pad, BERT.unknown, BERT.start, BERT.end, *BERT.also)
    tokens = dict.fromkeys((*special, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *words()))
    return Tokenizer(BERT, {token: number for number, token in enumerate(tokens)})
