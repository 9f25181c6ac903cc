"""Figures as files: one JSON list for each benchmark in build/bench/, an object a figure: name, value, unit, n."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "build" / "bench"


def figure(name: str, value: float, unit: str, n: int) -> dict[str, Any]:
    return {"name": name, "value": round(value, 4), "unit": unit, "n": n}


def write_figures(file: str, figures: list[dict[str, Any]]) -> None:
    """Write and print them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{file}.json").write_text(json.dumps(figures, indent=1) + "\n")
    for item in figures:
        print(f"{item['name']:60} {item['value']:>12} {item['unit']:8} n={item['n']}")
