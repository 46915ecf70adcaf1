"""Prompts as token ids: the tokenizers of BERT, CLIP and BART, from the files beside a model's weights.

Both twins are given the same ids, so neither depends on how a model library builds its tokenizer. The vocabulary is
read from tokenizer.json or, without it, from the files of the tokenizer's kind, which also decides how text is split.
"""
import json
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Splitter

from jittwin.errors import UserError, choose_from
from jittwin.text_cleaning import openai_clean
from jittwin.text_files import read_object, read_text


@dataclass(frozen=True)
class TokenizerKind:
    """The properties that tokenizers of one kind share.

    files: names of the files of vocabulary and merges, read if there is no tokenizer.json. start, end, pad, unknown:
    special tokens. length: most tokens of a text, including start and end. also: further special tokens that a text may
    contain. added: tokens whose ids follow the vocabulary. clean: a function that is applied to a text first.
    """
    name: str
    files: tuple[str, ...]
    start: str
    end: str
    pad: str
    unknown: str
    length: int
    also: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    clean: Callable[[str], str] | None = None

    @property
    def merges(self) -> bool:
        """True for byte-pair encoding, which merges pairs in order; False for WordPiece, the longest piece first."""
        return len(self.files) > 1


BERT = TokenizerKind("bert", ("vocab.txt",), "[CLS]", "[SEP]", "[PAD]", "[UNK]", 512, ("[MASK]",))
# BLIP and ImageReward. A text still begins with [CLS]; the added tokens only enlarge the table of embeddings.
BLIP = replace(BERT, name="blip", length=35, added=("[DEC]", "[ENC]"))
# CLIP splits text as transformers does. OpenAI's own package, with which CLIPScore is computed, cleans the text first.
CLIP = TokenizerKind("clip", ("vocab.json", "merges.txt"), "<|startoftext|>", "<|endoftext|>", "<|endoftext|>",
                     "<|endoftext|>", 77)
OPENAI_CLIP = replace(CLIP, name="openai_clip", clean=openai_clean)
BART = TokenizerKind("bart", ("vocab.json", "merges.txt"), "<s>", "</s>", "<pad>", "<unk>", 1024, ("<mask>",))
KINDS = {kind.name: kind for kind in (BERT, BLIP, CLIP, OPENAI_CLIP, BART)}


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts.

    ids: int32 (N, L). mask: int32 (N, L), 1 at tokens and 0 at padding. truncated: indices of texts that were cut.
    """
    ids: np.ndarray
    mask: np.ndarray
    truncated: tuple[int, ...]


class Tokenizer:
    """Converts texts to token ids.

    vocabulary: id of each token. merges: pairs of tokens in the order of merging. added: tokens by id that are matched
    before a text is split. rules: lowercase, strip_accents and handle_chinese_chars of BERT, add_prefix_space of BART.
    pad: the padding token, None for that of the kind. where: the file that messages name. UserError: a vocabulary of
    another kind, or without the special tokens.
    """

    def __init__(self, kind: TokenizerKind, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]] = (),
                 added: dict[int, AddedToken] | None = None, rules: dict | None = None, pad: str | None = None,
                 where="the vocabulary"):
        self.kind = kind
        added = dict(added or {})
        special = (kind.start, kind.end, pad or kind.pad, kind.unknown)
        known = {*vocabulary, *(token.content for token in added.values())}
        if missing := [token for token in dict.fromkeys(special) if token not in known]:
            raise UserError(f"{where}: its vocabulary of {len(vocabulary)} lacks {', '.join(missing)}, special tokens "
                            f"of {kind.name}; give the files of a {kind.name} tokenizer")
        try:
            self.splitter = _splitter(kind, vocabulary, list(merges), rules or {})
        except Exception as error:      # the Rust library raises plain Exceptions
            raise UserError(f"{where}: no {kind.name} vocabulary ({error}); give files of the same model") from error
        for token in [added[each] for each in sorted(added)]:
            self.splitter.add_tokens([token])
        has = {token.content for token in added.values()}
        self.splitter.add_special_tokens([token for token in (*special, *kind.also)
                                          if token in vocabulary and token not in has])
        self.splitter.add_special_tokens([token for token in kind.added if token not in has])
        for number, token in added.items():
            if self.id(token.content) != number:
                raise UserError(f"{where}: gives its added token '{token.content}' the id {number}, but the vocabulary "
                                f"leads to {self.id(token.content)}; give files of the same model")
        self.start, self.end, self.pad, _ = (self.id(token) for token in special)

    def __len__(self) -> int:
        """Number of ids, which is the number of rows of a table of embeddings."""
        return self.splitter.get_vocab_size()

    def like(self, kind: TokenizerKind) -> "Tokenizer":
        """A tokenizer with the same vocabulary that cleans texts as `kind` does."""
        found = copy(self)
        found.kind = replace(self.kind, name=kind.name, clean=kind.clean)
        return found

    def id(self, token: str) -> int | None:
        """The id of one token; None when there is none."""
        return self.splitter.token_to_id(token)

    def __call__(self, texts: Sequence[str], length: int | None = None, at_most: int | None = None) -> Tokens:
        """Token ids of each text between start and end, padded on the right to `length` or to the longest text.

        A text with more tokens than `length`, `at_most` or the kind allows loses its last tokens before the end token.
        UserError: a length that the kind does not allow, a text with half a surrogate pair.
        """
        limits = [limit for limit in (length, at_most) if limit is not None]
        for limit in limits:
            if not 2 <= limit <= self.kind.length:
                raise UserError(f"a length of {limit} tokens: a text of {self.kind.name} has 2 to {self.kind.length}; "
                                "choose from these")
        limit = min(limits, default=self.kind.length)
        split = [self._ids(text) for text in texts]
        kept = [[self.start, *ids[:limit - 2], self.end] for ids in split]
        ids = np.full((len(kept), length or max(map(len, kept), default=2)), self.pad, np.int32)
        mask = np.zeros_like(ids)
        for row, numbers in enumerate(kept):
            ids[row, :len(numbers)] = numbers
            mask[row, :len(numbers)] = 1
        return Tokens(ids, mask, tuple(row for row, numbers in enumerate(split) if len(numbers) > limit - 2))

    def _ids(self, text: str) -> list[int]:
        """Ids of one text. Texts are not encoded in batches, for which the library would start threads."""
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"the text {json.dumps(text[:60])} holds half a character (\\ud800 to \\udfff); write it "
                            "whole")
        return self.splitter.encode(self.kind.clean(text) if self.kind.clean else text, add_special_tokens=False).ids


def load_tokenizer(folder, kind: str | TokenizerKind) -> Tokenizer:
    """The tokenizer of a hub folder.

    UserError: no such folder or kind, no vocabulary, a Git LFS pointer instead of a file, damage, another kind.
    """
    folder = Path(folder)
    if isinstance(kind, str):
        if kind not in KINDS:
            raise UserError(f"tokenizer '{kind}'{choose_from(kind, KINDS)}")
        kind = KINDS[kind]
    settings = [read_object(folder / name) for name in ("special_tokens_map.json", "tokenizer_config.json")
                if (folder / name).is_file()]
    rules, pad = {}, None
    for found in settings:
        rules |= {rule: found[key] for key, rule in _RULES.items() if key in found}
        pad = _content(found.get("pad_token")) or pad
    if (folder / "tokenizer.json").is_file():
        vocabulary, merges, added, own_rules = _of_one_file(folder / "tokenizer.json", kind)
        return Tokenizer(kind, vocabulary, merges, added, own_rules | rules, pad, folder / "tokenizer.json")
    if missing := [name for name in kind.files if not (folder / name).is_file()]:
        raise UserError(f"{folder}: has no {' and no '.join(missing)}; expected tokenizer.json or "
                        f"{' and '.join(kind.files)}, the files beside the weights of a {kind.name} model")
    first, *rest = (folder / name for name in kind.files)
    vocabulary = _vocabulary(first, read_object(first)) if kind.merges else _lines(first)
    merges = [_pair(rest[0], line) for line in _split(rest[0]) if line and not line.startswith("#version")] \
        if kind.merges else ()
    return Tokenizer(kind, vocabulary, merges, rules=rules, pad=pad, where=first)


# Names of rules in tokenizer_config.json, and the names of the same rules in tokenizer.json.
_RULES = {"do_lower_case": "lowercase", "strip_accents": "strip_accents",
          "tokenize_chinese_chars": "handle_chinese_chars", "add_prefix_space": "add_prefix_space"}


def _splitter(kind: TokenizerKind, vocabulary: dict[str, int], merges: list, rules: dict) -> Splitter:
    if not kind.merges:
        splitter = Splitter(models.WordPiece(vocabulary, unk_token=kind.unknown))
        splitter.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=rules.get("handle_chinese_chars", True),
            strip_accents=rules.get("strip_accents"), lowercase=rules.get("lowercase", True))
        splitter.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif kind.start == CLIP.start:
        splitter = Splitter(models.BPE(vocabulary, merges, unk_token=kind.unknown, end_of_word_suffix="</w>",
                                       continuing_subword_prefix="", fuse_unk=False))
        splitter.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
        splitter.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(rf"<\|startoftext\|>|<\|endoftext\|>|{words}"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        splitter = Splitter(models.BPE(vocabulary, merges))
        splitter.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=rules.get("add_prefix_space", False))
    return splitter


# ---- files --------------------------------------------------------------------------

def _of_one_file(path: Path, kind: TokenizerKind) -> tuple[dict, list, dict[int, AddedToken], dict]:
    """Vocabulary, merges, added tokens and rules of a tokenizer.json."""
    content = read_object(path)
    model = content.get("model")
    if not isinstance(model, dict) or ("merges" in model) != kind.merges:
        name = model.get("type", "unnamed") if isinstance(model, dict) else "missing"
        raise UserError(f"{path}: its model is {name}, but {kind.name} has {'BPE' if kind.merges else 'WordPiece'}; "
                        f"give the folder of a {kind.name} tokenizer")
    flags = {"single_word", "lstrip", "rstrip", "normalized", "special"}
    rules = {}
    try:
        added = {int(token["id"]): AddedToken(token["content"], **{flag: token[flag] for flag in flags & token.keys()})
                 for token in content.get("added_tokens") or ()}
        for stage in ("normalizer", "pre_tokenizer"):
            rules |= {rule: value for rule, value in (content.get(stage) or {}).items() if rule in _RULES.values()}
        merges = [_pair(path, pair) for pair in model.get("merges", ())]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not a tokenizer file ({type(error).__name__}: {error}); get it again") from error
    return _vocabulary(path, model.get("vocab")), merges, added, rules


def _vocabulary(path: Path, vocabulary) -> dict[str, int]:
    if not (isinstance(vocabulary, dict) and vocabulary and len(set(vocabulary.values())) == len(vocabulary)
            and all(type(number) is int and number >= 0 for number in vocabulary.values())):
        raise UserError(f"{path}: its vocabulary is not one id for each token; get the file again")
    return vocabulary


def _lines(path: Path) -> dict[str, int]:
    """A vocabulary with one token per line; the id of a token is the number of its line."""
    return {token: number for number, token in enumerate(_split(path))}


def _split(path: Path) -> list[str]:
    """Lines of a file without "\\n" or "\\r\\n"; other line separators of Unicode may be part of a token."""
    lines = [line.removesuffix("\r") for line in read_text(path, "the file of a tokenizer").split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _pair(path: Path, merge) -> tuple[str, str]:
    pair = tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
    if len(pair) != 2:
        raise UserError(f"{path}: the merge '{merge}' is not a pair with a space between; get the file again")
    return pair


def _content(token) -> str | None:
    """The text of a token in a settings file, where it is a text or a record with "content" and flags."""
    return token.get("content") if isinstance(token, dict) else token
