"""Tokenizers without files, for networks that are trained from nothing on the built-in data, or not at all."""
import string

from tokenizers.pre_tokenizers import ByteLevel

from jittwin.data.synthetic.prompted import words
from jittwin.models.distortion import INSTRUCTION
from jittwin.text import BART, BERT, Tokenizer, TokenizerKind

SPACE = "\u0120"             # a space before a word, as BART writes it
NO_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))


def built_in_tokenizer(kind: TokenizerKind = BERT) -> Tokenizer:
    """Its vocabulary is the words of the built-in data, and letters, digits and ASCII punctuation for all others.

    kind: of WordPiece; CLIP, which then splits every text into its bytes; or BART, which splits all but known words
    into bytes. Those of the detector of distortion's instruction are known as well.
    """
    if kind is BART:
        letters = sorted(ByteLevel.alphabet())
        merges, known = [], sorted({*words(), *INSTRUCTION.translate(NO_PUNCTUATION).split()})
        for word in known:
            whole = f"{SPACE}{word}"
            merges += [(whole[:end], whole[end]) for end in range(1, len(whole))]
        merges = list(dict.fromkeys(merges))
        special = (kind.start, kind.pad, kind.end, kind.unknown)        # the order of BART's ids
        tokens = dict.fromkeys((*special, *letters, *(left + right for left, right in merges), *kind.also))
        return Tokenizer(kind, {token: number for number, token in enumerate(tokens)}, merges)
    if kind.merges:
        letters = sorted(ByteLevel.alphabet())
        tokens = dict.fromkeys((*letters, *(f"{letter}</w>" for letter in letters), kind.start, kind.end))
        return Tokenizer(kind, {token: number for number, token in enumerate(tokens)})
    letters = [*string.ascii_lowercase, *string.digits]
    special = (kind.pad, kind.unknown, kind.start, kind.end, *kind.also)
    tokens = dict.fromkeys((*special, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *words()))
    return Tokenizer(kind, {token: number for number, token in enumerate(tokens)})
