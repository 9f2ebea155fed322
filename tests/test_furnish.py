"""What pages get besides what notebooks and theme give: pictures for the dark, a description, icons that are used."""

import io

import numpy as np
import pytest
from docutils import nodes
from docutils.utils import new_document
from PIL import Image

from lib.site import furnish, offline


def chart():
    """White paper with a black line, a blue line and a pink dot."""
    pixels = np.full((200, 300, 3), 255, np.uint8)
    pixels[100:103] = 0
    pixels[50:53] = (1, 115, 178)
    pixels[150:162, 40:52] = (251, 175, 228)
    return pixels


def grid():
    """White paper with a word and two rows of three images, one of them white in parts."""
    pixels = np.full((120, 200, 3), 255, np.uint8)
    for y in (5, 65):
        for x in (50, 100, 150):
            pixels[y : y + 45, x : x + 45] = (20, 90, 60)
    pixels[70:110, 105:140] = 255
    pixels[25:28, 10:30] = 0
    return pixels


def seen(path):
    return np.asarray(Image.open(io.BytesIO(furnish.at_night(path))).convert("RGB")).astype(int)


def test_a_chart_gets_dark_paper_and_light_ink_and_keeps_its_colours(tmp_path):
    Image.fromarray(chart()).save(tmp_path / "chart.png")
    dark = seen(tmp_path / "chart.png")
    assert furnish.is_chart(chart())
    assert (dark[5, 5] == furnish.DARK).all() and (dark[101, 200] >= 200).all()
    red, green, blue = dark[51, 200]
    assert red < green < blue, "blue stays blue"
    assert (dark[156, 46] == (251, 175, 228)).all(), "a light colour stays light"


def test_a_grid_of_images_keeps_its_images_and_turns_the_paper_between(tmp_path):
    Image.fromarray(grid()).save(tmp_path / "grid.png")
    inside = furnish.tiles(grid())
    assert inside[30, 60] and inside[90, 120] and not inside[30, 97] and not inside[26, 20]
    dark = seen(tmp_path / "grid.png")
    assert np.abs(dark[30, 60] - (20, 90, 60)).max() < 8 and dark[90, 120].min() > 240
    assert dark[60, 10].max() < 30 and dark[26, 20].min() > 180


@pytest.mark.parametrize("name", ["photo.png", "missing.png", "film.gif"])
def test_what_is_not_drawn_on_white_paper_is_left_alone(tmp_path, name):
    if name == "photo.png":
        noise = np.random.default_rng(0).integers(0, 200, (50, 50, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    assert furnish.at_night(tmp_path / name) is None


def test_a_page_is_described_by_its_first_paragraph_cut_between_words():
    page = new_document("page")
    page += nodes.Text("")
    assert furnish.describe(page) == ""
    box = nodes.note("", nodes.paragraph(text="A box at the top that says where all of the numbers come from."))
    page += [box, nodes.paragraph(text="Too short."), nodes.paragraph(text="Words of a first paragraph. " * 20)]
    found = furnish.describe(page)
    assert found.startswith("Words of a first paragraph.") and found.endswith("…")
    assert len(found) <= furnish.DESCRIPTION


def test_only_icons_that_pages_name_stay_in_the_themes_script():
    script = (
        'var a={bars:[448,512,["x"],"f0c9","M0"],"circle-half":[5,5,[],"f042",["M1","M2"]],list:[1,1,[],"f03a","M3"]};'
    )
    assert offline.only_icons(script, {"list", "circle-half"}) == (
        'var a={"circle-half":[5,5,[],"f042",["M1","M2"]],list:[1,1,[],"f03a","M3"]};'
    )
    assert offline.only_icons("no icons here", set()) == "no icons here"
