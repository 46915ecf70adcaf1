"""Tokenizers of hand-made vocabularies against ids found by hand, and what is no tokenizer against its one line."""
import json

import numpy as np
import pytest

from jittwin.errors import UserError
from jittwin.text import BART, BERT, BLIP, CLIP, KINDS, Tokenizer, load_tokenizer
from jittwin.text_cleaning import openai_clean

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "cat", ",", "\u4e2d"]
LETTERS = ["a", "b", "c", "\u0120", "a</w>", "b</w>", "c</w>"]      # \u0120 stands for a space
CLIP_FILES = {
    "vocab.json": json.dumps({token: n for n, token in enumerate([*LETTERS, "ab", "abc</w>", CLIP.start, CLIP.end])}),
    "merges.txt": "#version: 0.2\na b\nab c</w>\n"}
BART_FILES = {
    "vocab.json": json.dumps({token: n for n, token in enumerate(
        ["<s>", "<pad>", "</s>", "<unk>", *LETTERS[:4], "ab", "\u0120ab", "<mask>"])}),
    "merges.txt": "#version: 0.2\r\na b\r\n\u0120 ab\r\n"}


def folder_of(path, files):
    for name, content in files.items():
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def bert_files(words=WORDS, end="\n"):
    return {"vocab.txt": end.join([*words, ""])}


def one_file(**changes):
    content = {"added_tokens": [{"id": 11, "content": "[DEC]", "special": True}],
               "normalizer": {"type": "BertNormalizer", "lowercase": True},
               "model": {"type": "WordPiece", "vocab": {word: n for n, word in enumerate(WORDS)}}}
    return {"tokenizer.json": json.dumps(content | changes)}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bert_by_hand(tmp_path, end):
    tokenizer = load_tokenizer(folder_of(tmp_path, bert_files(end=end)), "bert")
    tokens = tokenizer(["Unaffable, CAT", "\u4e2dcat", "dog", ""])
    assert tokens.ids.tolist() == [[2, 5, 6, 7, 9, 8, 3], [2, 10, 8, 3, 0, 0, 0], [2, 1, 3, 0, 0, 0, 0],
                                   [2, 3, 0, 0, 0, 0, 0]]
    assert tokens.mask.sum(1).tolist() == [7, 4, 3, 2] and tokens.ids.dtype == tokens.mask.dtype == np.int32
    assert tokens.truncated == () and len(tokenizer) == 11 and tokenizer.id("cat") == 8


def test_lengths(tmp_path):
    tokenizer = load_tokenizer(folder_of(tmp_path, bert_files()), BERT)
    texts = ["cat " * 3, "cat " * 600]
    fixed, shorter, longest = tokenizer(texts, length=5), tokenizer(texts, length=9, at_most=4), tokenizer(texts)
    assert fixed.ids.tolist() == [[2, 8, 8, 8, 3]] * 2 and fixed.truncated == (1,)
    assert shorter.ids.tolist() == [[2, 8, 8, 3, 0, 0, 0, 0, 0]] * 2 and shorter.truncated == (0, 1)
    assert longest.ids.shape == (2, 512) and longest.ids[1, -1] == 3 and longest.truncated == (1,)
    assert tokenizer([]).ids.shape == (0, 2)
    for options in ({"length": 513}, {"length": 1}, {"at_most": 0}):
        with pytest.raises(UserError, match="2 to 512"):
            tokenizer(texts, **options)


def test_a_line_of_the_vocabulary_may_hold_what_unicode_ends_a_line_with(tmp_path):
    words = [*WORDS[:5], "\u2028", "\x85", "cat"]
    assert load_tokenizer(folder_of(tmp_path, bert_files(words)), "bert")(["cat"]).ids.tolist() == [[2, 7, 3]]


def test_blip_has_two_more(tmp_path):
    tokenizer = load_tokenizer(folder_of(tmp_path, bert_files()), "blip")
    assert tokenizer(["cat [ENC]"], 35).ids[0, :5].tolist() == [2, 8, 12, 3, 0] and len(tokenizer) == 13
    assert BLIP.length == 35 and tokenizer.id("[DEC]") == 11


def test_one_file_with_an_added_token(tmp_path):
    tokenizer = load_tokenizer(folder_of(tmp_path, one_file()), "bert")
    assert tokenizer(["[DEC] Cat"]).ids.tolist() == [[2, 11, 8, 3]]
    assert load_tokenizer(tmp_path, "blip").id("[ENC]") == 12       # which adds only the one that is not there


def test_clip_by_hand(tmp_path):
    tokenizer = load_tokenizer(folder_of(tmp_path, CLIP_FILES), "clip")
    tokens = tokenizer(["ABC  ab", "caz"], 7)
    assert tokens.ids.tolist() == [[9, 8, 0, 5, 10, 10, 10], [9, 2, 0, 10, 10, 10, 10]]     # z is unknown
    assert tokens.mask.tolist() == [[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0, 0]]


def test_bart_by_hand(tmp_path):
    tokenizer = load_tokenizer(folder_of(tmp_path, BART_FILES), "bart")
    assert tokenizer(["ab ab", " <mask>c"]).ids.tolist() == [[0, 8, 9, 2, 1], [0, 7, 10, 6, 2]]


@pytest.mark.parametrize("kind, files, words", [
    ("bert", {}, "has no vocab.txt; expected tokenizer.json or vocab.txt"),
    ("clip", {"vocab.json": "{}"}, "has no merges.txt; expected tokenizer.json or vocab.json and merges.txt"),
    ("bert", bert_files(WORDS[3:]), "its vocabulary of 8 lacks [CLS], [PAD], [UNK], special tokens of bert"),
    ("clip", BART_FILES, "lacks <|startoftext|>, <|endoftext|>"),
    ("bert", {"vocab.txt": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}, "git lfs pull"),
    ("bert", {"tokenizer.json": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}, "git lfs pull"),
    ("bert", {"tokenizer.json": '{"model": '}, "cannot be read as JSON (Expecting value: line 1"),
    ("bert", {"tokenizer.json": "[" * 100_000}, "cannot be read as JSON"),
    ("bert", {"tokenizer.json": "[]"}, "holds a list instead of an object"),
    ("bert", {"tokenizer.json": "{}"}, "its model is missing, but bert has WordPiece"),
    ("clip", one_file(), "its model is WordPiece, but clip has BPE"),
    ("bert", one_file(model={"type": "WordPiece", "vocab": {"a": 1, "b": 1}}), "not one id for each token"),
    ("bert", one_file(model={"type": "WordPiece", "vocab": {"a": -1}}), "not one id for each token"),
    ("bert", one_file(added_tokens=[{"content": "x"}]), "not a tokenizer file (KeyError: 'id')"),
    ("bert", one_file(added_tokens=[{"id": 40, "content": "x"}]), "'x' the id 40, but the vocabulary leads to 11"),
    ("bert", bert_files() | {"tokenizer_config.json": "{"}, "tokenizer_config.json: cannot be read as JSON"),
    ("bert", {"vocab.txt": b"a\xff"}, "line 1 is not UTF-8 (byte 1 is 0xff)"),
    ("clip", CLIP_FILES | {"merges.txt": "a b c\n"}, "'a b c' is not a pair"),
    ("clip", CLIP_FILES | {"merges.txt": "a q\n"}, "Token `q` out of vocabulary); give files of the same model"),
    ("brt", {}, "tokenizer 'brt' (did you mean 'bert'?): choose from bert, blip"),
])
def test_what_is_no_tokenizer_is_one_line(tmp_path, kind, files, words):
    with pytest.raises(UserError) as error:
        load_tokenizer(folder_of(tmp_path, files), kind)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert kind not in KINDS or str(error.value).startswith(str(tmp_path))


def test_half_a_character_is_one_line(tmp_path):
    with pytest.raises(UserError, match="half a character"):
        load_tokenizer(folder_of(tmp_path, bert_files()), "bert")(["a", "b\ud83d"])


def test_special_tokens_are_named_when_given_a_vocabulary():
    with pytest.raises(UserError, match="the vocabulary: its vocabulary of 1 lacks <s>, </s>, <pad>, <unk>"):
        Tokenizer(BART, {"a": 0})


@pytest.mark.parametrize("text, cleaned", [     # as ftfy 6.3.1 and CLIP's own code make them
    ("  A  Cat\u2019s \u201cHAT\u201d\n", "a cat's \"hat\""),
    ("&amp;lt;b&amp;gt; &rsquo;n", "<b> 'n"),
    ("<i> &amp;lt; &rsquo;", "<i> < \u2019"),
    ("&rsquo;\n<i>\n&rsquo;", "' <i> \u2019"),
    ("\uff21\uff22\uff23\u3000\uff76\uff9e", "abc \u30ac"),
    ("\ufb01ne \u01c4 \u0149 \ufb05", "fine d\u017e 'n \u017ft"),
    ("\x1b[31mred\x07\ufeff \x85 \x91x\x81", "red \u2026 'x\x81"),
    ("cafe\u0301 \u03a3\u038f\u03a3 \u00bd \U0001f469\u200d\U0001f3a8", "caf\u00e9 \u03c3\u03ce\u03c2 \u00bd \U0001f469\u200d\U0001f3a8"),
    ("", ""),
])
def test_cleaning_of_openai_clip(text, cleaned):
    assert openai_clean(text) == cleaned
