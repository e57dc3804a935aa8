"""The pictures of the documents: programs draw all of them."""

import re
from pathlib import Path

import pytest
from snippets import DOCUMENTS

from benchmarks import conclusions
from docs.draw import kernel_way
from docs.draw.__main__ import PICTURES
from docs.draw.style import write

ROOT = Path(__file__).parents[1]
DRAWN = {**PICTURES, **conclusions.PLOTS}


@pytest.mark.parametrize("name", DRAWN)
def test_is_drawn(name, tmp_path):
    path = tmp_path / f"{name}.svg"
    write(DRAWN[name], path)
    content = path.read_bytes()
    write(DRAWN[name], path)
    assert content == path.read_bytes() and b"<svg" in content


def test_the_way_of_a_kernel_goes_through_files_that_exist():
    for _, places, _, _ in kernel_way.STEPS:
        for place in places.split(":")[0].split(", "):
            found = [*(ROOT / "tfptq").glob(place.rstrip("/")), *(ROOT / "tfptq" / "lowering").glob(place.rstrip("/"))]
            assert found, place


def test_every_picture_is_drawn_and_shown():
    shown = {
        (ROOT / document).parent.joinpath(link).resolve().relative_to(ROOT).as_posix()
        for document in DOCUMENTS
        for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / document).read_text(encoding="utf-8"))
    }
    present = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "pictures").iterdir()}
    assert shown == present - {"docs/pictures/mixed_mobilenetv2.png"}  # drawn with its network, and too tall for a page
    assert {f"docs/pictures/{name}.svg" for name in DRAWN} == {path for path in present if path.endswith(".svg")}
