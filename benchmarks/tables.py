"""Write docs/measurements.md from the csv files in results/.

uv run python benchmarks/tables.py
"""

from pathlib import Path

import accuracy_tables
import cost_tables

PAGE = Path(__file__).parents[1] / "docs" / "measurements.md"


def main() -> None:
    parts = [
        "# Measurements",
        "Made by `benchmarks/tables.py` from `benchmarks/results/*.csv`; do not edit by hand. "
        "The machine is shared: speeds are ratios within one run.",
        *accuracy_tables.classification(),
        *cost_tables.step_times(),
        *cost_tables.kept_teachers(),
        *accuracy_tables.scenes(),
        *cost_tables.deployed(),
        *cost_tables.quantized(),
        cost_tables.loops(),
        *cost_tables.beginnings(),
    ]
    PAGE.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
