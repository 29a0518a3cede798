"""docs/ledger.md is what the ledger says today."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_page_is_up_to_date():
    page = runpy.run_path(str(ROOT / "scripts" / "ledger_page.py"))["page"]
    shown = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    assert shown == page(), "run scripts/ledger_page.py"
