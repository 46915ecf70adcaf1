"""Text files of other systems are read alike or refused in one line, and files that are something else are named."""
import random

import pytest

from jittwin.data.ava import read_scores
from jittwin.data.ava_split import read_ids
from jittwin.data.evalmuse import read_entries
from jittwin.data.evalmuse_files import read_captions
from jittwin.data.prompts import read_prompts
from jittwin.data.votes import read_votes
from jittwin.errors import UserError
from jittwin.text_files import lines_of, read_lines, read_object, read_text

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")     # those without a mark get one
LINE_ENDS = ("\n", "\r\n", "\r")
ALPHABET = "abcXYZ019 _-.()éßñ山风景ひ😀\u2028\x85\x0b"       # with characters at which str.splitlines would cut


def encoded(text: str, encoding: str) -> bytes:
    return ("\ufeff" * encoding.endswith(("-le", "-be")) + text).encode(encoding)


def drawn_names(rng: random.Random) -> list[str]:
    names = {"".join(rng.choices(ALPHABET, k=rng.randint(1, 12))).strip() for _ in range(rng.randint(2, 8))}
    return [f"{name}{number}" for number, name in enumerate(sorted(filter(None, names)))] + ["last"]


@pytest.mark.parametrize("seed", range(40))
def test_names_are_the_same_in_every_encoding_and_with_every_line_end(tmp_path, seed):
    rng = random.Random(seed)
    names = drawn_names(rng)
    for encoding in ENCODINGS:
        end, last = rng.choice(LINE_ENDS), rng.choice((True, False))
        path = tmp_path / f"{encoding}.txt"
        path.write_bytes(encoded(end.join(names) + end * last, encoding))
        assert read_lines(path) == [name.strip() for name in names], (encoding, end)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", LINE_ENDS)
def test_lists_that_were_joined_have_no_mark_in_a_name(tmp_path, encoding, end):
    (tmp_path / "a.txt").write_bytes(encoded(end.join(["\ufeffa.png", "\ufeff风\ufeff.png", "c.png"]), encoding))
    assert read_lines(tmp_path / "a.txt") == ["a.png", "风\ufeff.png", "c.png"]


@pytest.mark.parametrize("seed", range(12))
def test_every_reader_of_tables_takes_them(tmp_path, seed):
    """Prompts, votes, captions, annotations and AVA's votes and lists of drawn names, encodings and ends of lines."""
    rng = random.Random(seed)
    names = [f"{name.replace('.', '')}.png" for name in drawn_names(rng) if not set(name) & set("\x85\x0b\u2028")]

    def written(name: str, lines: list[str]):
        encoding, end = rng.choice(ENCODINGS), rng.choice(LINE_ENDS)
        (tmp_path / name).write_bytes(encoded(end.join(lines), encoding))
        return tmp_path / name

    prompts = read_prompts(written("p.csv", ["picture,prompt", *(f'{name},"a, {name}"' for name in names)]))
    assert prompts.by_name == {name: f"a, {name}" for name in names}
    records = read_prompts(written("p.jsonl", [f'{{"image": "{name}", "prompt": "x"}}' for name in names]))
    assert records.by_name == dict.fromkeys(names, "x")
    votes = read_votes(written("v.csv", ["picture;mos", *(f"{name};{at}" for at, name in enumerate(names))]), "mos")
    assert {name: vote.value for name, vote in votes.by_name.items()} == {name: at for at, name in enumerate(names)}
    captions = read_captions(written("c.csv", ["image,caption", *(f"{name}, of it" for name in names)]))
    assert captions == dict.fromkeys(names, "of it")
    entries = read_entries(written("a.json", ["{", *(f'"{name}": {{}},' for name in names), '"z": {}}']))
    assert list(entries) == [*names, "z"]
    ids = [str(rng.randint(1, 10 ** 6)) for _ in range(5)]
    assert read_ids(written("ids.jpgl", [f"{each}.jpg" for each in ids])) == list(dict.fromkeys(ids))
    scores = read_scores(written("AVA.txt", [f"{at} {each} 1 2 3 4 5 4 3 2 1 0 0 0 7" for at, each in enumerate(ids)]))
    assert list(scores) == list(dict.fromkeys(ids)) and not scores.short


@pytest.mark.parametrize("seed", range(30))
def test_another_encoding_is_refused_with_the_way_to_mend_it(tmp_path, seed):
    """Never read as other names: a drawn text of a system's own encoding is one line with the place and the command."""
    rng = random.Random(seed)
    encoding, letters = rng.choice([("gbk", "风景山水树云"), ("big5", "風景山水樹雲"), ("shift_jis", "ひらがな景色"),
                                    ("euc_kr", "풍경산물나무"), ("cp1252", "éèüßñøÆ")])
    first = rng.randint(0, 3)
    lines = ["plain.jpg"] * first + ["".join(rng.choices(letters, k=4)) + ".jpg", "b.jpg"]
    path = tmp_path / "list.txt"
    path.write_bytes("\r\n".join(lines).encode(encoding))
    with pytest.raises(UserError) as error:
        read_lines(path)
    message = str(error.value)
    assert message.startswith(f"{path}: line {first + 1} is not UTF-8 (byte ") and "\n" not in message
    assert message.endswith("; save the file as UTF-8")
    if encoding != "cp1252":
        assert "(iconv -f GB18030 -t UTF-8 OLD > NEW)" in message


@pytest.mark.parametrize("content, words", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a pointer of git LFS"),
    (b"<!DOCTYPE html>\n<html><title>Sign in</title>", "is a web page in place of the file itself"),
    (b"\xef\xbb\xbf\r\n<html>", "is a web page"), (b"PK\x03\x04\x14\0", "is a zip archive; give a list"),
    (b"\x1f\x8b\x08\0", "is a gzip archive; unpack it"), (b"\x89PNG\r\n\x1a\n\0\0", "is a PNG picture; give a list"),
    (b"\0\x05\x16\x07\0\x02", "is a companion file of macOS"), (bytes(64), "is nothing but zero bytes"),
    ("a.jpg\nb.jpg".encode("utf-16-le"), "line 1 holds a zero character"),
    ("a.jpg\nb.jpg".encode("utf-16") + b"x", "line 2 is not UTF-16"), (b"a.jpg\r\xff\r", "line 2 is not UTF-8 (byte 6")])
def test_what_is_no_text_is_named(tmp_path, content, words):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_text(tmp_path / "list.txt", "a list")
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("first", ["GIF89.png", "BZhang.jpg", "PKB.png", "<lora:x:1> a cat", "BM.jpg", "II.png", "GGUF.png",
                                   "import this", "MM.jpg", "outs.jpg", "L.png", "%PDF.png"])
def test_a_list_may_begin_like_something_else(tmp_path, first):
    (tmp_path / "list.txt").write_text(f"{first}\nb.jpg\n")
    assert read_lines(tmp_path / "list.txt") == [first, "b.jpg"]


def test_missing_files_folders_and_other_json(tmp_path):
    with pytest.raises(UserError, match=r"none.txt: cannot be read \(No such file or directory\); give a text file with"):
        read_lines(tmp_path / "none.txt")
    with pytest.raises(UserError, match="Is a directory"):
        read_text(tmp_path)
    (tmp_path / "a.json").write_bytes(b'\xff\xfe[\0]\0')
    with pytest.raises(UserError, match="holds a list instead of an object; fetch the file again"):
        read_object(tmp_path / "a.json")
    assert lines_of("") == [] and lines_of("a\n\nb") == ["a", "", "b"] and lines_of("a\r\n\r\rb\n") == ["a", "", "", "b"]
