"""Token ids against transformers, from the same files: vocabularies learned here, and tokenizer.json."""
import json
import random

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import BartTokenizerFast, BertTokenizerFast, CLIPTokenizerFast

from jittwin.text import BART, BERT, BLIP, CLIP, OPENAI_CLIP, Tokenizer, load_tokenizer
from jittwin.text_cleaning import openai_clean
from parity.cases.text import TEXTS, vocabulary_files

ORACLES = {"bert": BertTokenizerFast, "blip": BertTokenizerFast, "clip": CLIPTokenizerFast, "bart": BartTokenizerFast}


def made_of_all(count, seed=3):
    """Random strings of the characters and words of TEXTS."""
    pieces = [piece for text in TEXTS if len(text) < 200 for piece in (*text, *text.split())]
    draw = random.Random(seed)
    return ["".join(draw.choices(pieces, k=draw.randrange(1, 12))) for _ in range(count)]


def write(folder, kind, **settings):
    for name, content in vocabulary_files(kind).items():
        (folder / name).write_bytes(content)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind.name: write(tmp_path_factory.mktemp(kind.name), kind) for kind in (BERT, CLIP, BART)}


def same(ours: Tokenizer, oracle, texts=TEXTS, length=None):
    longest = length or ours.kind.length
    tokens = ours(list(texts), length)
    truth = oracle(list(texts), padding="max_length" if length else True, truncation=True, max_length=longest,
                   return_tensors="np")
    np.testing.assert_array_equal(tokens.ids, truth["input_ids"])
    np.testing.assert_array_equal(tokens.mask, truth["attention_mask"])
    assert tokens.ids.dtype == tokens.mask.dtype == np.int32
    whole = oracle(list(texts))["input_ids"]
    assert tokens.truncated == tuple(row for row, ids in enumerate(whole) if len(ids) > longest)
    return tokens


@pytest.mark.parametrize("name", ["bert", "clip", "bart"])
@pytest.mark.parametrize("length", [None, 16, 77])
def test_ids_equal_transformers(folders, name, length):
    ours, oracle = load_tokenizer(folders[name], name), ORACLES[name].from_pretrained(folders[name])
    tokens = same(ours, oracle, length=length)
    assert len(ours) == len(oracle) and len(np.unique(tokens.ids)) > 60
    assert tokens.truncated or length is None


@pytest.mark.parametrize("name", ["bert", "clip", "bart"])
def test_ids_of_random_texts_equal_transformers(folders, name):
    same(load_tokenizer(folders[name], name), ORACLES[name].from_pretrained(folders[name]), made_of_all(400))


@pytest.mark.parametrize("name", ["bert", "clip", "bart"])
def test_tokenizer_json_gives_the_same_ids(folders, name, tmp_path):
    oracle = ORACLES[name].from_pretrained(folders[name])
    oracle.save_pretrained(tmp_path)
    assert not (tmp_path / "vocab.txt").exists() and not (tmp_path / "vocab.json").exists()
    same(load_tokenizer(tmp_path, name), ORACLES[name].from_pretrained(tmp_path))


def test_padding_and_truncation_kept_in_tokenizer_json_do_not_count(folders, tmp_path):
    """A published all-MiniLM-L6-v2 keeps both at 128."""
    oracle = BertTokenizerFast.from_pretrained(folders["bert"])
    oracle.backend_tokenizer.enable_truncation(8)
    oracle.backend_tokenizer.enable_padding(length=8)
    oracle.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    same(load_tokenizer(tmp_path, "bert"), BertTokenizerFast.from_pretrained(folders["bert"]))


@pytest.mark.parametrize("settings", [
    {"do_lower_case": False}, {"strip_accents": False}, {"do_lower_case": False, "strip_accents": True},
    {"tokenize_chinese_chars": False}])
@pytest.mark.parametrize("one_file", [False, True])
def test_the_rules_of_a_bert_are_those_of_its_settings(settings, one_file, tmp_path):
    folder = write(tmp_path, BERT, **settings)
    oracle = BertTokenizerFast.from_pretrained(folder)
    if one_file:
        oracle.backend_tokenizer.save(str(folder / "tokenizer.json"))
        for name in ("vocab.txt", "tokenizer_config.json"):
            (folder / name).unlink()
    tokens = same(load_tokenizer(folder, "bert"), oracle)
    assert not np.array_equal(tokens.ids, Tokenizer(BERT, oracle.get_vocab())(TEXTS).ids)


def test_the_settings_come_before_the_rules_of_tokenizer_json(tmp_path):
    folder = write(tmp_path, BERT, do_lower_case=False)
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).backend_tokenizer.save(str(folder / "tokenizer.json"))
    assert json.loads((folder / "tokenizer.json").read_text())["normalizer"]["lowercase"]
    same(load_tokenizer(folder, "bert"), BertTokenizerFast.from_pretrained(folder))


def test_a_bart_may_begin_every_text_with_a_space(tmp_path):
    folder = write(tmp_path, BART, add_prefix_space=True)
    same(load_tokenizer(folder, "bart"), BartTokenizerFast.from_pretrained(folder))


@pytest.mark.parametrize("pad", ["!", {"content": "!", "lstrip": False, "__type": "AddedToken"}])
def test_a_clip_may_pad_with_another_token(tmp_path, pad):
    folder = write(tmp_path, CLIP, pad_token=pad)
    tokens = same(load_tokenizer(folder, "clip"), CLIPTokenizerFast.from_pretrained(folder, pad_token="!"))
    assert tokens.ids[0, -1] == 0


def test_blip_adds_two_tokens_to_bert(folders):
    oracle = BertTokenizerFast.from_pretrained(folders["bert"])
    size = len(oracle)
    oracle.add_tokens(["[DEC]", "[ENC]"], special_tokens=True)
    ours = load_tokenizer(folders["bert"], "blip")
    assert len(ours) == size + 2 and (ours.id("[DEC]"), ours.id("[ENC]")) == (size, size + 1)
    assert same(ours, oracle, length=35).ids.max() == size + 1


def test_further_tokens_of_tokenizer_json_keep_their_ids_and_flags(folders, tmp_path):
    oracle = BartTokenizerFast.from_pretrained(folders["bart"])
    oracle.add_tokens([AddedToken("<loc_0>"), AddedToken("<loc_1>", lstrip=True, rstrip=True),
                       AddedToken("birds", single_word=True, special=True)])
    oracle.save_pretrained(tmp_path)
    texts = ["a <loc_0> b <loc_1> c", "blackbirds birds", *TEXTS]
    same(load_tokenizer(tmp_path, "bart"), BartTokenizerFast.from_pretrained(tmp_path), texts)


def test_a_mask_that_takes_the_space_before_it(folders, tmp_path):
    """As published BART files say of <mask>."""
    oracle = BartTokenizerFast.from_pretrained(folders["bart"], mask_token=AddedToken("<mask>", lstrip=True, special=True))
    oracle.save_pretrained(tmp_path)
    texts = ["a <mask> b", "a<mask> b"]
    same(load_tokenizer(tmp_path, "bart"), oracle, texts)
    (tmp_path / "tokenizer_config.json").unlink()
    tokens = same(load_tokenizer(tmp_path, "bart"), oracle, texts)
    assert tokens.ids[0].tolist() == tokens.ids[1].tolist()


def test_openai_clip_cleans_and_then_splits_as_clip(folders):
    oracle = CLIPTokenizerFast.from_pretrained(folders["clip"])
    cleaned = [openai_clean(text) for text in TEXTS]
    assert sum(text != clean for text, clean in zip(TEXTS, cleaned)) > 10
    ours = load_tokenizer(folders["clip"], OPENAI_CLIP)
    truth = oracle(cleaned, padding="max_length", truncation=True, max_length=77, return_tensors="np")
    np.testing.assert_array_equal(ours(TEXTS, 77).ids, truth["input_ids"])
    assert BLIP.clean is None
