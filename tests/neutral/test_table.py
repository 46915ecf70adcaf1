"""Tables: every format against one set of rows, every mistake against its one line."""
import io
import zipfile

import openpyxl
import pytest

from jittwin.data.table import read_table, write_sheet
from jittwin.errors import UserError

COLUMNS = ["picture", "prompt", "MOS_q"]
ROWS = [["1.png", "a cat, sitting", 3.5], ["sub/2.png", 'the "old"\nhouse', 0.25], ["风景.png", "山和水", 4]]


def sheet(path, rows, edit=None):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    if edit:
        edit(book)
    book.save(path)
    return path


@pytest.mark.parametrize("name, delimiter, encoding", [
    ("t.csv", ",", "utf-8"), ("t.csv", ";", "utf-8-sig"), ("t.csv", "\t", "utf-16"), ("t.TSV", "\t", "utf-8"),
    ("t.xlsx", None, None)])
def test_every_format_gives_the_same(tmp_path, name, delimiter, encoding):
    path = tmp_path / name
    if delimiter:
        quoted = [['"{}"'.format(str(cell).replace('"', '""')) for cell in row] for row in [COLUMNS, *ROWS]]
        path.write_bytes("\r\n".join(map(delimiter.join, quoted)).encode(encoding))
    else:
        write_sheet(path, COLUMNS, ROWS)
        assert [list(row) for row in openpyxl.load_workbook(path).active.values] == [COLUMNS, *ROWS]
    table = read_table(path)
    assert table.columns == COLUMNS and table.texts("prompt") == [row[1] for row in ROWS]
    assert table.texts("picture") == [row[0] for row in ROWS] and table.numbers("MOS_q") == [3.5, 0.25, 4]
    assert table.places[0] == ("line 2" if delimiter else "row 2")


def test_empty_cells_and_trailing_rows(tmp_path):
    rows = [["a", "b", None], ["x", None, None], [None, None, None], ["", " ", None]]
    for path in (sheet(tmp_path / "t.xlsx", rows), tmp_path / "t.csv"):
        if path.suffix == ".csv":
            path.write_text("a,b\nx,\n\n , \n")
        table = read_table(path)
        assert table.columns == ["a", "b"] and table.texts("b", may_be_empty=True) == [None]


def test_a_wrong_size_in_the_file_does_not_matter(tmp_path):
    whole, cut = io.BytesIO(), tmp_path / "t.xlsx"
    sheet(whole, [COLUMNS, *ROWS])
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(cut, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b'ref="A1:C4"', b'ref="A1"'))
    assert len(read_table(cut).rows) == 3


def with_formula(book):
    book.active["C3"] = "=1+1"


def with_text(book):
    book.active["C3"].value, book.active["C3"].data_type = "=1+1", "s"


@pytest.mark.parametrize("rows, edit, words", [
    ([], None, "its first sheet is empty"), ([[None], ["a"]], None, "its first row is empty"),
    ([COLUMNS], None, "has a header and no rows"),
    ([["a", None, "b"], [1, 2, 3]], None, "column 2 has no name"),
    ([["a", "a"], [1, 2]], None, "column 2 is called 'a', as another is"),
    ([["a"], [1, 2]], None, "row 2 has more cells than the header, 1"),
    ([["a", "MOSq"], [1, 2]], None, "no column 'MOS_q' (did you mean 'MOSq'?): choose from a, MOSq"),
    ([COLUMNS, *ROWS], with_formula, "row 3: its MOS_q is the formula =1+1; put values"),
    ([COLUMNS, *ROWS], with_text, "row 3: its MOS_q is '=1+1'; write a number"),
    ([COLUMNS, ["a", "b", "good"]], None, "row 2: its MOS_q is 'good'; write a number"),
    ([COLUMNS, ["a", "b", "nan"]], None, "row 2: its MOS_q is 'nan'; write a number"),
    ([COLUMNS, ["a", "b", True]], None, "row 2: its MOS_q is 'True'; write a number"),
    ([COLUMNS, ["a", "b", None]], None, "row 2: its MOS_q is empty; write a number")])
def test_mistakes_in_a_sheet_are_one_line(tmp_path, rows, edit, words):
    path = sheet(tmp_path / "t.xlsx", rows, edit)
    with pytest.raises(UserError) as error:
        read_table(path).numbers("MOS_q")
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value) and "\n" not in str(error.value)


def test_text_may_look_like_a_formula_and_a_number_is_no_text(tmp_path):
    path = sheet(tmp_path / "t.xlsx", [COLUMNS, *ROWS], with_text)
    assert read_table(path).texts("picture")[1] == "sub/2.png"
    path = sheet(tmp_path / "u.xlsx", [["prompt"], [1984]])
    with pytest.raises(UserError, match="row 2: its prompt is 1984, not text; write it as text"):
        read_table(path).texts("prompt")


@pytest.mark.parametrize("name, content, words", [
    ("t.xls", b"", "the suffix '.xls' is no format of tables .did you mean '.xlsx'"),
    ("t.xlsx", b"PK\3\4", "no Excel file, or damaged"),
    ("t.xlsx", b"", "no Excel file, or damaged"), ("t.csv", b"", "the file is empty"),
    ("t.csv", b"a,b\n1,2,3\n", "line 2 has more"),
    ("t.csv", b'a,b\n"1,2\n', "is not a row of a table"), ("t.csv", b"a,\xff\n", "line 1 is not UTF-8")])
def test_files_that_are_no_table(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: .*{words}"):
        read_table(tmp_path / name)
    with pytest.raises(UserError, match="No such file"):
        read_table(tmp_path / "none.csv" if "csv" in name else tmp_path / "none.xlsx")
