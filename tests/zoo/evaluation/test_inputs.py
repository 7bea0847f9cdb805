from pathlib import Path

import pytest

from deeplab_zoo import ZooError
from deeplab_zoo.zoo.evaluation.inputs import find


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.jpg", "in/a.png", "in/deep/b.JPG", "in/.hidden/c.jpg", "in/note.txt", "d.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given: str, listed: tuple[str, ...] = ()) -> dict[str, str]:
    return {str(one.path): str(one.name) for one in find(given, listed)}


@pytest.mark.usefixtures("photos")
def test_files_folders_globs_and_lists_give_pictures_with_their_folders() -> None:
    assert names("a.jpg") == {"a.jpg": "a"}
    assert names("in/a.png") == {"in/a.png": "a"}
    assert names("in") == {"in/a.png": "a", "in/deep/b.JPG": "deep/b"}
    assert names("*.*") == {"a.jpg": "a", "d.webp": "d"}
    assert names("in/**/*") == {"in/a.png": "a", "in/deep/b.JPG": "deep/b"}
    assert names("i?/*/*.JPG") == {"in/deep/b.JPG": "in/deep/b"}
    listed = ("a.jpg\n", "\n", "in/deep\r\n")
    assert names("-", listed=listed) == {"a.jpg": "a", "in/deep/b.JPG": "b"}
    assert names("a.jpg", "a.jpg") == {"a.jpg": "a"}


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("none.jpg", "in/.hidden", "*.gif"), "none.jpg: does not exist"),
        (("x*",), "x\\*: holds no picture"),
        (("-",), "the list is empty"),
        ((), "the list is empty"),
        (("a.jpg", "in"), "a: a.jpg, in/a.png"),
    ],
)
def test_what_gives_no_pictures_or_one_name_twice_is_refused(
    given: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ZooError, match=problem):
        find(given)
