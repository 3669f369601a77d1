"""What Redis's suite need not pass is said in the documentation, and means something."""

from pathlib import Path

from conformance.expected import load, table
from conformance.modes import MODES

PAGE = Path(__file__).parent.parent.parent / "docs" / "conformance.md"


def test_the_page_shows_what_need_not_pass() -> None:
    shown = PAGE.read_text().partition("<!-- expected -->\n")[2].partition("\n<!-- end -->")[0]
    assert shown == table(load())


def test_modes_are_known_and_reasons_given() -> None:
    for entry in load():
        assert set(entry.modes) <= MODES.keys() - {"direct"}
        assert entry.modes
        assert entry.reason
