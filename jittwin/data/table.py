"""Tables from CSV, TSV and Excel files: a header, and rows of cells whose places messages can name.

Text is read by jittwin.text_files. Of an Excel file the first sheet is read.
"""
import csv
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jittwin.atomic import atomic_write
from jittwin.errors import UserError, choose_from
from jittwin.text_files import lines_of, read_text

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
EXCEL = ".xlsx"
FORMATS = (*DELIMITERS, EXCEL)
MOST_ROWS = 2 ** 20     # rows of an Excel sheet that are read at most


@dataclass(frozen=True)
class Formula:
    """A cell of an Excel file that holds a formula instead of a value."""
    text: str


@dataclass(frozen=True)
class Table:
    """A table with a header.

    columns: the header. rows: cells in the order of `columns`; text in a text file, any value in an Excel file, None
    for an empty cell. places: "line 3" or "row 3" for each row.
    """
    path: Path
    columns: list[str]
    rows: list[list]
    places: list[str]

    def column(self, name: str) -> list:
        """The cells of a column. UserError: there is no such column."""
        if name not in self.columns:
            raise UserError(f"{self.path}: no column '{name}'{choose_from(name, self.columns)}")
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def numbers(self, name: str) -> list[float]:
        """The cells of a column as finite numbers. UserError: a cell is empty, a formula, or not a number."""
        return [self._number(place, name, cell) for place, cell in zip(self.places, self.column(name))]

    def texts(self, name: str, may_be_empty: bool = False) -> list[str | None]:
        """The cells of a column as text, None for empty ones. UserError: a formula, a number, an empty cell."""
        return [self._text(place, name, cell, may_be_empty) for place, cell in zip(self.places, self.column(name))]

    def _number(self, place: str, name: str, cell) -> float:
        if isinstance(cell, Formula):
            raise self._formula(place, name, cell)
        try:
            value = float(cell) if isinstance(cell, (str, int, float)) and not isinstance(cell, bool) else math.nan
        except (ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            seen = "is empty" if cell is None else f"is {str(cell)[:60]!r}"
            raise UserError(f"{self.path}: {place}: its {name} {seen}; write a number, or remove the row")
        return value

    def _text(self, place: str, name: str, cell, may_be_empty: bool) -> str | None:
        if isinstance(cell, Formula):
            raise self._formula(place, name, cell)
        if cell is None and may_be_empty:
            return None
        if not isinstance(cell, str):
            seen = "is empty" if cell is None else f"is {str(cell)[:60]}, not text"
            raise UserError(f"{self.path}: {place}: its {name} {seen}; write it as text")
        return cell

    def _formula(self, place: str, name: str, cell: Formula) -> UserError:
        return UserError(f"{self.path}: {place}: its {name} is the formula {cell.text[:60]}; put values in place of "
                         "formulas (copy, paste as values)")


def read_table(path) -> Table:
    """Read a table whose first row is its header; the suffix of the file decides the format.

    UserError: unreadable, another format, no rows, a column without a name, two columns of one name, a row with more
    cells than the header.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"{path}: the suffix '{path.suffix}' is no format of tables{choose_from(suffix, FORMATS)}")
    found = list(_sheet_rows(path) if suffix == EXCEL else _text_rows(path, DELIMITERS[suffix]))
    if not found:
        raise UserError(f"{path}: {'its first sheet' if suffix == EXCEL else 'the file'} is empty; give a table with a "
                        "header and a row for each picture")
    (_, header), *rest = found
    columns = [str(cell).strip() if cell is not None else "" for cell in header]
    while columns and not columns[-1]:
        columns.pop()
    if not columns:
        raise UserError(f"{path}: its first row is empty; put the names of the columns there")
    for number, name in enumerate(columns, 1):
        if not name or name in columns[:number - 1]:
            raise UserError(f"{path}: column {number} {f'is called {name!r}, as another is' if name else 'has no name'}"
                            "; name every column in the first row, each its own way")
    if not rest:
        raise UserError(f"{path}: has a header and no rows; give a row for each picture")
    for place, cells in rest:
        if any(cell is not None for cell in cells[len(columns):]):
            raise UserError(f"{path}: {place} has more cells than the header, {len(columns)}; put text with a "
                            "delimiter in double quotes, or name the columns")
    rows = [[*cells, *[None] * len(columns)][:len(columns)] for _, cells in rest]
    return Table(path, columns, rows, [place for place, _ in rest])


def write_sheet(path, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
    """Write an Excel file with one sheet. UserError: openpyxl is not installed, or the file cannot be written."""
    book = _openpyxl(path).Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    for row in (columns, *rows):
        sheet.append(row)
    with atomic_write(path) as stream:
        book.save(stream)


# ---- text ---------------------------------------------------------------------------

def delimiter_of(text: str, usual: str, fits: Callable[[list[str]], bool]) -> str:
    """The first of `usual`, comma, semicolon and tab for which fits(cells of the first line) is true, else `usual`.

    A spreadsheet may write a .csv file with another delimiter than the comma.
    """
    first = next((line for line in lines_of(text) if line.strip()), "")
    return next((each for each in (usual, *",;\t") if fits(first.split(each))), usual)


def split_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, cells) of each row that is not blank. UserError: a row with wrong quotes."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield f"line {rows.line_num}", cells
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.line_num} is not a row of a table ({error}); write a double quote inside "
                        "quotes twice, and close every quote") from error


def _text_rows(path: Path, usual: str) -> Iterator[tuple[str, list[str | None]]]:
    text = read_text(path, "a table")
    delimiter = delimiter_of(text, usual, lambda cells: len(cells) > 1)
    for place, cells in split_rows(path, text, delimiter):
        yield place, [cell.strip() or None for cell in cells]


# ---- Excel --------------------------------------------------------------------------

def _openpyxl(path):
    try:
        import openpyxl
    except ImportError as error:
        raise UserError(f"{path}: Excel files need openpyxl; pip install openpyxl, or use a .csv file") from error
    return openpyxl


def _sheet_rows(path: Path) -> Iterator[tuple[str, list]]:
    """Yield (place, cells) of the rows of the first sheet, down to the last row that is not blank."""
    openpyxl, waiting = _openpyxl(path), []
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")     # openpyxl warns about styles and extensions that it ignores
            sheets = openpyxl.load_workbook(stream, read_only=True).worksheets
            if not sheets:
                return
            sheets[0].reset_dimensions()        # some programs write a wrong size
            for number, row in enumerate(sheets[0].iter_rows(max_row=MOST_ROWS), 1):
                cells = [_value(cell) for cell in row]
                waiting.append((f"row {number}", cells))
                if any(cell is not None for cell in cells):
                    yield from waiting
                    waiting = []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give a table") from error
    except Exception as error:      # openpyxl raises nearly anything on damaged files
        raise UserError(f"{path}: no Excel file, or damaged ({str(error)[:80] or type(error).__name__}); save it as "
                        ".xlsx again") from error


def _value(cell):
    if cell.data_type == "f":
        return Formula(str(cell.value))
    value = cell.value
    return (value.strip() or None) if isinstance(value, str) else value
