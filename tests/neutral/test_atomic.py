"""Files and folders that appear whole or not at all."""
import pytest

from jittwin.atomic import remove_leftovers, whole_folder
from jittwin.errors import UserError


def test_a_folder_takes_the_place_of_the_one_before(tmp_path):
    for text in ("old", "new"):
        with whole_folder(tmp_path / "made") as folder:
            (folder / text).write_text(text)
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "new"]


@pytest.mark.parametrize("error, raised", [(ValueError("no"), ValueError), (OSError(28, "No space left"), UserError)])
def test_a_failure_leaves_the_folder_before_alone(tmp_path, error, raised):
    with whole_folder(tmp_path / "made") as folder:
        (folder / "old").touch()
    with pytest.raises(raised), whole_folder(tmp_path / "made") as folder:
        (folder / "new").touch()
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "old"]


def test_leftovers_of_a_kill_are_removed_and_nothing_else(tmp_path):
    (tmp_path / ".a.npz.0123456789ab.tmp").touch()
    (tmp_path / ".adapter.0123456789ab.tmp" / "inside").mkdir(parents=True)
    for name in (".mine.tmp", "b.0123456789ab.tmp", "c"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "b.0123456789ab.tmp", "c"]
