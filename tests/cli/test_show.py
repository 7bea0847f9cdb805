from itertools import count

import pytest

from deeplab_zoo.cli.show import counter


def test_progress_is_a_line_for_every_tenth_and_starts_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(step=2)  # Seconds; lines come three apart at least.
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    show = counter("scored")
    for _ in range(2):
        for done in range(3, 61, 3):
            show(done, 60)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"scored {done} of 60" for done in range(6, 61, 6)
    ] * 2
    assert lines[-1].endswith(" 0 s left")


def test_a_single_one_needs_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    counter("scored")(1, 1)
    assert capsys.readouterr().err == ""
