"""Prompts of pictures: every format against one dictionary, every mistake against its one line."""
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from jittwin.data.pictures import ImageSet
from jittwin.data.prompts import read_prompts
from jittwin.data.table import write_sheet
from jittwin.errors import UserError

EXPECTED = {"1.png": "a cat, sitting", "sub/2.png": 'the "old"\nhouse', "风景.png": "山和水 🏔"}


def write(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def table(delimiter=",", header=("picture", "prompt")):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerows([*([header] if header else []), *EXPECTED.items()])
    return buffer.getvalue()


def records(picture="image", prompt="caption"):
    return [{picture: name, "seed": 3, prompt: text} for name, text in EXPECTED.items()]


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(folder / name)
    return ImageSet(folder)


def refused(path, **options):
    with pytest.raises(UserError) as error:
        read_prompts(path, **options)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("name, content, encoding", [
    ("p.csv", table(), "utf-8"),
    ("p.csv", table(), "utf-8-sig"),            # Notepad, Excel
    ("p.csv", table(), "utf-16"),
    ("p.csv", table(header=None), "utf-8-sig"),
    ("p.csv", table(";"), "utf-8"),             # Excel where the comma is the decimal sign
    ("p.csv", table("\t"), "utf-16"),
    ("p.CSV", table(header=("File_Name", "Text")), "utf-8"),
    ("p.csv", "\r\n" + table() + ",\r\n\r\n", "utf-8"),
    ("p.tsv", table("\t"), "utf-8"),
    ("p.txt", table("\t", None), "utf-16-be-bom"),
    ("p.json", json.dumps(EXPECTED), "utf-8"),
    ("p.json", json.dumps(EXPECTED, indent=1, ensure_ascii=False), "utf-16"),
    ("p.json", json.dumps(records()), "utf-8-sig"),
    ("p.jsonl", "\r\n".join(map(json.dumps, records("Generated_image", "Text_prompt"))) + "\n\n", "utf-8-sig"),
])
def test_every_format_gives_the_same(tmp_path, name, content, encoding, capsys):
    if encoding == "utf-16-be-bom":
        content, encoding = "\ufeff" + content, "utf-16-be"
    path = write(tmp_path / name, content, encoding)
    prompts = read_prompts(path)
    assert {name: text.replace("\r\n", "\n") for name, text in prompts.by_name.items()} == EXPECTED
    assert len(prompts) == 3 and capsys.readouterr().err == ""


def test_an_excel_file_gives_the_same(tmp_path):
    rows = [[name, 3, text] for name, text in EXPECTED.items()]
    write_sheet(tmp_path / "annotation.xlsx", ["Generated_image", "seed", "Text_prompt"], rows)
    assert read_prompts(tmp_path / "annotation.xlsx").by_name == EXPECTED
    write_sheet(tmp_path / "other.xlsx", ["a", "b"], [["1.png", "x"]])
    assert "its first row names no columns of pictures and prompts (a, b)" in refused(tmp_path / "other.xlsx")


def test_columns_besides_the_two_are_passed_over_and_the_first_known_name_counts(tmp_path):
    path = write(tmp_path / "p.csv", "name,seed,Image Path,prompt\nAnna,3,a.png,x\nBert,4,b.png,y\n")
    assert read_prompts(path).by_name == {"a.png": "x", "b.png": "y"}


def test_a_first_row_with_a_picture_is_no_header(tmp_path):
    assert read_prompts(write(tmp_path / "p.csv", "text.png,prompt\n")).by_name == {"text.png": "prompt"}
    assert read_prompts(write(tmp_path / "q.csv", "1,a picture; prompt\n")).by_name == {"1": "a picture; prompt"}


def test_names_are_written_with_slashes(tmp_path):
    path = write(tmp_path / "p.csv", 'sub\\1.png , "a, b"\n./2.png,  c\n')
    assert read_prompts(path).by_name == {"sub/1.png": "a, b", "2.png": "c"}


@pytest.mark.parametrize("name, content, words", [
    ("p.xls", b"PK", "choose from .csv"),
    ("p.xlsx", b"PK", "no Excel file, or damaged"),
    ("p.csv", "a.png,x\n风景.png,山\n".encode("gbk"), "line 2 is not UTF-8 (byte 8 is 0xb7)"),
    ("p.csv", b"\xff\xfea\0b", "not UTF-16"),
    ("p.csv", "a.png,x\n".encode("utf-16-le"), "without a byte order mark"),
    ("p.csv", "", "holds no prompts"),
    ("p.csv", "picture,prompt\n", "holds no prompts"),
    ("p.csv", "a.png\n", "line 1 has 1 columns, not 2"),
    ("p.csv", "a.png,x\nb.png,a cat, sitting\n", "line 2 has 3 columns, not 2; put a prompt with a ','"),
    ("p.csv", 'a.png,"x\nb.png,y\n', "is not a row of a table"),
    ("p.csv", 'a.png,"x" y\n', "line 1 is not a row of a table"),
    ("p.csv", "id,prompt\n1,x\n", "no column of the pictures (id, prompt); call it one of picture, image"),
    ("p.csv", "prompt\nx\n", "no column of the pictures"),
    ("p.csv", "picture,label\n1,x\n", "no column of the prompts"),
    ("p.csv", "a.png,x\nb.png,\n", "'b.png' (line 2) has an empty prompt"),
    ("p.csv", "a.png,x\n,y\n", "line 2 names no picture"),
    ("p.csv", "a.png,x\nb.png,y\n.\\a.png,z\n", "'a.png' has two prompts, \"x\" (line 1) and \"z\" (line 3)"),
    ("p.json", '{"a.png": "x", "a.png": "y"}', "'a.png' has two prompts"),
    ("p.json", '{"a.png": "x",\n "b.png" "y"}', "line 2, column 10 is not JSON"),
    ("p.json", "[" * 100_000, "cannot be read as JSON"),
    ("p.json", '{"a.png": null}', "entry 1: its prompt is null, not text"),
    ("p.json", '{"picture": {"0": "a.png"}}', "not text"),
    ("p.json", '{"a.png": "\\ud83d"}', "half a character"),
    ("p.json", '"a"', 'holds "a"'),
    ("p.json", '[{"image": "a.png", "seed": 3}]', "entry 1 has the keys image, seed; give a record"),
    ("p.json", '["a.png"]', 'entry 1 is "a.png"'),
    ("p.jsonl", '{"image": "a.png", "prompt": "x"}\n{"image"', "line 2, column 9 is not JSON"),
])
def test_mistakes_are_one_line(tmp_path, name, content, words):
    assert words in refused(write(tmp_path / name, content))


def test_no_such_file_and_a_folder_are_one_line(tmp_path):
    assert "No such file" in refused(tmp_path / "none.csv")
    (tmp_path / "folder.json").mkdir()
    assert "directory" in refused(tmp_path / "folder.json")


def test_an_empty_prompt_is_one_where_it_is_allowed(tmp_path):
    assert read_prompts(write(tmp_path / "p.json", '{"a.png": ""}'), allow_empty=True).by_name == {"a.png": ""}


def test_the_same_prompt_again_is_told(tmp_path, capsys):
    path = write(tmp_path / "p.csv", "a.png,x\nb.png,y\na.png,x\n")
    assert read_prompts(path).by_name == {"a.png": "x", "b.png": "y"}
    assert capsys.readouterr().err.strip() == (
        f"{path}: lists 1 of its 2 pictures again, with the same prompt: a.png")


# ---- which picture ------------------------------------------------------------------

def prompts_of(tmp_path, names):
    return read_prompts(write(tmp_path / "p.json", json.dumps({name: f"of {name}" for name in names})))


@pytest.mark.parametrize("names, expected", [
    (["a/1.png", "b/1.png", "v1.5.png"], ["a/1.png", "b/1.png", "v1.5.png"]),
    (["a/1", "b/1", "v1.5"], ["a/1", "b/1", "v1.5"]),
    (["elsewhere/v1.5.png", "b/1.png", "a/1.png"], ["a/1.png", "b/1.png", "elsewhere/v1.5.png"]),
    (["x/v1.5.JPG", "b/1.png", "a/1.jpeg"], ["a/1.jpeg", "b/1.png", "x/v1.5.JPG"]),
])
def test_a_picture_is_found_by_path_then_name_then_stem(tmp_path, names, expected, capsys):
    images = pictures(tmp_path / "in", "a/1.png", "b/1.png", "v1.5.png")
    assert prompts_of(tmp_path, names).of(images) == [f"of {name}" for name in expected]
    assert capsys.readouterr().err == ""


def test_the_file_name_comes_before_the_stem(tmp_path):
    images = pictures(tmp_path / "in", "sub/1.jpg", "sub/1.png")
    assert prompts_of(tmp_path, ["x/1.png", "x/1.jpg"]).of(images) == ["of x/1.jpg", "of x/1.png"]


def test_the_exact_path_comes_before_the_name(tmp_path, capsys):
    images = pictures(tmp_path / "in", "imgs/a.png")
    assert prompts_of(tmp_path, ["a.png", "imgs/a.png"]).of(images, skip_unused=True) == ["of imgs/a.png"]
    assert "1 of its 2 prompts match no picture" in capsys.readouterr().err


def test_an_accent_may_be_written_either_way(tmp_path):
    images = pictures(tmp_path / "in", "cafe\u0301.png")
    assert prompts_of(tmp_path, ["caf\u00e9.png"]).of(images) == ["of caf\u00e9.png"]


@pytest.mark.parametrize("there, names, words", [
    (["a/1.png", "b/1.png"], ["1.png"], "'1.png' could be any of 2: a/1.png, b/1.png"),
    (["1.png", "1.jpg"], ["1"], "'1' could be any of 2: 1.jpg, 1.png"),
    (["1.png"], ["a/1.png", "b/1.png"], "'1.png' could be any of 2: a/1.png, b/1.png"),
    (["a/1.png", "b/1.png"], ["a/1.png", "1.png"], "'1.png' could be any of 2"),
    (["1.png", "1.jpg"], ["1.png"], "no prompt for 1 of the 2 pictures"),       # its own is taken by 1.png
    ([f"{n}.png" for n in range(9)], ["0.png", "8.png"],
     "no prompt for 7 of the 9 pictures in {in}: 1.png, 2.png, 3.png, 4.png, 5.png, ...;"),
])
def test_doubt_and_want_are_one_line(tmp_path, there, names, words):
    images = pictures(tmp_path / "in", *there)
    with pytest.raises(UserError) as error:
        prompts_of(tmp_path, names).of(images)
    assert words.replace("{in}", str(images)) in str(error.value) and "\n" not in str(error.value)


def test_prompts_of_no_picture_are_told(tmp_path, capsys):
    images = pictures(tmp_path / "in", "1.png")
    prompts = prompts_of(tmp_path, [f"{n}.png" for n in range(9)])
    message = (f"{tmp_path / 'p.json'}: 8 of its 9 prompts match no picture in {images}: '0.png' (did you mean "
               "'1.png'?), '2.png' (did you mean '1.png'?), '3.png' (did you mean '1.png'?), ...")
    with pytest.raises(UserError) as error:
        prompts.of(images)
    assert str(error.value) == f"{message}; correct or remove them, or exclude them with --skip-unused"
    assert prompts.of(images, skip_unused=True) == ["of 1.png"]
    assert capsys.readouterr().err.strip() == message


def write_images(path, rows):
    """A file of records with image prompts, in the format that the suffix says."""
    header = ("Generated_image", "Image_prompt", "Text_prompt")
    if path.suffix == ".xlsx":
        write_sheet(path, header, rows)
    elif path.suffix == ".csv":
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([header, *([cell or "" for cell in row] for row in rows)])
        path.write_text(buffer.getvalue())
    else:
        path.write_text(json.dumps([dict(zip(header, row)) for row in rows]))
    return path


@pytest.mark.parametrize("name", ["p.xlsx", "p.csv", "p.json"])
def test_image_prompts(tmp_path, name):
    """Of the pictures that have one, as annotation.xlsx of PKU-AIGIQA-4K names them."""
    rows = [("a.jpg", "0.jpg", "a cat"), ("b.jpg", None, "a cat"), ("c.jpg", "sub\\1.jpg", "a dog")]
    found = read_prompts(write_images(tmp_path / name, rows))
    assert found.by_name == {"a.jpg": "a cat", "b.jpg": "a cat", "c.jpg": "a dog"}
    assert found.image_prompts == {"a.jpg": "0.jpg", "c.jpg": "sub/1.jpg"}
    images = pictures(tmp_path / "set", "x/c.jpg", "b.jpg", "d.png")
    assert found.image_prompts_of(images) == [None, None, "sub/1.jpg"]


@pytest.mark.parametrize("rows, message", [
    ([("a.jpg", "0.jpg", "a cat"), ("a.jpg", "1.jpg", "a cat")],
     "'a.jpg' has two image prompts, \"0.jpg\" (entry 1) and \"1.jpg\" (entry 2); remove one"),
    ([("a.jpg", 7, "a cat")], "entry 1: its image prompt is 7, not text; write its file name in double quotes")])
def test_mistakes_about_image_prompts(tmp_path, rows, message):
    assert message in refused(write_images(tmp_path / "p.json", rows))
