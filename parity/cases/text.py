"""The case of the tokenizers: texts about which implementations disagree, split with small vocabularies."""
import json
import tempfile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from jittwin.text import BART, BERT, BLIP, CLIP, KINDS, TokenizerKind, load_tokenizer
from parity.case import Case
from parity.workers.side import Arrays, Side

SENTENCE = "A painting of an ocean with clouds and birds, day time, low depth field effect."
TEXTS = (
    "", " ", " \t\r\n ", SENTENCE, f"  {SENTENCE.upper()}  ", f"{SENTENCE} " * 40,      # 560 words
    "unaffable unbelievably re-painted; it's, they're, we've, I'd, WE'LL, ''s 's'",
    "一只猫坐在桌子上, 山和水", "日本語のテキスト と 한국어",
    "cafe\u0301 caf\u00e9 na\u00efve \u00c5ngstr\u00f6m \u1e69 s\u0323\u0307",
    "\u0130stanbul Stra\u00dfe \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u03a3",
    "\u01c4 \ufb01ne \uff21\uff22\uff23\u3000wide",
    "\u0645\u0631\u062d\u0628\u0627 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947",
    "🏔️ 👩\u200d🎨 👨\u200d👩\u200d👧 🇨🇳 ❤️ 🤖🤖",
    "zero\u200bwidth\u200djoiner\ufeffmark soft\u00adhyphen no\u00a0break\u2003em",
    "&amp; &lt;b&gt; &quot;x&quot; &#39; &amp;amp; <b>bold</b>",
    "bell\x07 nul\x00 esc\x1b[31m del\x7f next\x85line\u2028para",
    "3.14159 1,000,000 1/2 \u00bd \u00b2 \u2167 12ab34 0x1F 2026-11-28",
    "\u2019quotes\u2018 \u201cdouble\u201d \u2014 \u2026 \u00ab\u00bb",
    "a" * 250, "word" * 24 + " " + "word" * 25, "aaa.bbb__ccc--ddd//eee\\fff@#$%^&*()",
    "[MASK] [CLS] [SEP] [PAD] [UNK] [mask] a[MASK]b [DEC][ENC]", "<s> </s> <pad> <unk> a <mask> b <MASK>",
    "<|startoftext|> a <|endoftext|>b <|ENDOFTEXT|>", "\ue000private \U0010ffff \ufffd tail", "new\nline\ttab\r\nend",
    "!important! cat!! ! ", "trailing space ", " leading space")
UNKNOWN = "\u4e00猫山日本"          # characters that the small BERT vocabulary does not have


def vocabulary_files(kind: TokenizerKind) -> dict[str, bytes]:
    """The files of a vocabulary of some hundred tokens, learned from TEXTS, by the names that a hub folder has."""
    special = list(dict.fromkeys((kind.pad, kind.unknown, kind.start, kind.end, *kind.also)))
    if not kind.merges:
        learned = Tokenizer(models.WordPiece(unk_token=kind.unknown))
        learned.normalizer, learned.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
        learned.train_from_iterator([text for text in TEXTS if not set(text) & set(UNKNOWN)], trainer)
        tokens = learned.get_vocab()
        return {"vocab.txt": "".join(f"{token}\n" for token in sorted(tokens, key=tokens.get)).encode()}
    suffix = "</w>" if kind.name.endswith("clip") else ""
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Lowercase() if suffix else normalizers.NFC()
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not suffix)
    if suffix:
        learned.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), learned.pre_tokenizer])
    trainer = trainers.BpeTrainer(vocab_size=900, end_of_word_suffix=suffix, show_progress=False)
    learned.train_from_iterator(TEXTS, trainer)
    merges = [merge if isinstance(merge, list) else merge.split(" ")
              for merge in json.loads(learned.to_str())["model"]["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + suffix for letter in alphabet if suffix), *map("".join, merges), *special]
    return {"vocab.json": json.dumps({token: number for number, token in enumerate(dict.fromkeys(tokens))}).encode(),
            "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, merges), ""]).encode()}


class Tokenizers(Case):
    """The ids and masks that reach the networks of either twin, against those that transformers makes from the same
    files. The mode names the kind of tokenizer. The text cleaning of OpenAI's CLIP is left out, as in transformers."""
    name = "tokenizers"
    shared = True
    modes = tuple(f"eval {kind.name}" for kind in (BERT, BLIP, CLIP, BART))
    levels = ("L7",)
    lengths = (None, 16)        # padded to the longest text, and cut

    def inputs(self, size, mode):
        files = vocabulary_files(KINDS[mode.split()[1]])
        return {name: np.frombuffer(content, np.uint8) for name, content in files.items()}

    def tokenized(self, side: Side, inputs: Arrays, mode: str) -> Arrays:
        """"ids …" and "mask …" by length, as tensors of the framework."""
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = load_tokenizer(write_files(folder, inputs), mode.split()[1])
        for length in self.lengths:
            tokens = tokenizer(TEXTS, length)
            found |= {f"ids {length}": side.host(side.tensor(tokens.ids)),
                      f"mask {length}": side.host(side.tensor(tokens.mask))}
        return found

    def expected(self, inputs: Arrays, mode: str) -> Arrays:
        """The same arrays as transformers makes them. Only the PyTorch worker may call this."""
        import transformers
        kind = KINDS[mode.split()[1]]
        of = {"clip": transformers.CLIPTokenizerFast, "bart": transformers.BartTokenizerFast}
        with tempfile.TemporaryDirectory() as folder:
            oracle = of.get(kind.name, transformers.BertTokenizerFast).from_pretrained(write_files(folder, inputs))
        oracle.add_tokens(list(kind.added), special_tokens=True)
        found = {}
        for length in self.lengths:
            tokens = oracle(list(TEXTS), padding="max_length" if length else True, truncation=True,
                            max_length=length or kind.length, return_tensors="np")
            found |= {f"ids {length}": tokens["input_ids"].astype(np.int32),
                      f"mask {length}": tokens["attention_mask"].astype(np.int32)}
        return found


def write_files(folder: str, files: Arrays) -> Path:
    """Write these arrays of bytes into the folder; returns the folder."""
    for name, content in files.items():
        Path(folder, name).write_bytes(content.tobytes())
    return Path(folder)


CASES = (Tokenizers(),)
