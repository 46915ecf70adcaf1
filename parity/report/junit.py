"""A report as JUnit XML, which every CI service shows: one suite per model, one test case per row."""
import re
import xml.etree.ElementTree as ElementTree

from parity.report.report import Report, explained, short, title
from parity.result import Row

ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")     # in XML 1.0


def render(report: Report) -> str:
    root = ElementTree.Element("testsuites", _counts(report.rows), name="parity")
    for model in dict.fromkeys(r.model for r in report.rows):
        rows = [r for r in report.rows if r.model == model]
        suite = ElementTree.SubElement(root, "testsuite", _counts(rows), name=model, errors="0", skipped="0")
        for r in rows:
            _case(suite, r)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def _case(suite, r: Row) -> None:
    name = title(r).removeprefix(f"{r.model} ")
    case = ElementTree.SubElement(suite, "testcase", classname=f"parity.{r.model}", name=name,
                                  time=f"{r.detail.get('seconds', 0):.2f}")
    numbers = f"error {short(r.error)}, noise {short(r.noise)}, ratio {short(r.ratio)}, worst {r.worst or '-'}"
    if r.passed:
        ElementTree.SubElement(case, "system-out").text = legal(numbers)
        return
    failure = ElementTree.SubElement(case, "failure", message=legal(explained(r).splitlines()[0]))
    tensors = [f"{tensor[0]}: {tensor[-1]}" for tensor in r.detail.get("tensors", []) if tensor[-1]]
    failure.text = legal("\n".join([explained(r), numbers, *tensors]))


def _counts(rows: list[Row]) -> dict[str, str]:
    seconds = sum(r.detail.get("seconds", 0) for r in rows)
    return {"tests": str(len(rows)), "failures": str(sum(not r.passed for r in rows)), "time": f"{seconds:.2f}"}


def legal(text: str) -> str:
    """The text without characters that XML does not allow, which the output of a crashed worker may contain."""
    return ILLEGAL.sub("?", text)
