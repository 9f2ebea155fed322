import base64
import io
import json
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from lib.files import ROOT
from lib.report import embed, explorer, plots
from lib.site import book

CLASSES = ["zero", "one", "</script><b>two"]


def images(*shape, seed=0):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def data_of(made):
    return json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', made.html, re.S)[1])


def still_of(made):
    return opened(re.search(r'<img [^>]*src="([^"]+)"', made.html)[1])


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split("base64,")[1])))


def tile(sprite, data, index):
    """The image at a place of a sprite, cut out as explorer.js does."""
    row, column = divmod(index, data["columns"])
    left, top = column * data["width"], row * data["height"]
    return np.asarray(sprite.crop((left, top, left + data["width"], top + data["height"])))


def strips(**changes):
    given = {
        "rows": {"up": images(3, 3, 4, 4), "down": images(3, 3, 4, 4, seed=1)},
        "positions": torch.linspace(-3, 3, 3),
        "unit": "σ",
        "numbers": {"up": [0.123456, 2, -3], "down": [1, 2, 3]},
        "title": "Strips",
    }
    return explorer.strips(**{**given, **changes})


def a_map(**changes):
    given = {
        "points": torch.tensor([[0.0, 0.0], [1.0, 10.0], [2.0, 5.0]]),
        "images": images(3, 1, 4, 4),
        "labels": torch.tensor([0, 1, 2]),
        "classes": CLASSES,
        "neighbours": torch.tensor([[1], [2], [1]]),
        "title": "A map",
    }
    return explorer.scatter(**{**given, **changes})


def some_draws(**changes):
    given = {
        "images": images(3, 1, 4, 4),
        "counts": torch.tensor([1, 10]),
        "estimates": torch.tensor([[-92.0, -80.126, -71.0], [-90.0, -80.0, -70.0]]),
        "shares": torch.tensor([[1.0, 1.0, 1.0], [0.25, 0.5, 0.1256]]),
        "bounds": torch.tensor([-91.0, -81.0, -71.0]),
        "names": ("ELBO", "last"),
        "unit": "nats",
        "title": "Draws",
    }
    return explorer.draws(**{**given, **changes})


def switches(**changes):
    moving = np.arange(24, dtype=np.int8).reshape(3, 4, 2)
    numbers = {"meter": [1.0, 0.5, 0.12345]}
    given = {
        "names": ["a", "b"],
        "recordings": {(True, True): "x", (True, False): "y", (False, True): "x", (False, False): "y"},
        "moments": ["step 0", "step 1", "step 2"],
        "points": {"x": moving, "y": -moving},
        "numbers": {"x": numbers, "y": numbers},
        "labels": torch.tensor([0, 1, 2, 0]),
        "classes": CLASSES,
        "title": "Switches",
    }
    return explorer.switches(**{**given, **changes})


def surfaces(**changes):
    points = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)
    heights = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    numbers = {"exact distance": [1.0, 0.5, 0.12345]}
    given = {
        "points": {"x": points, "y": 255 - points},
        "heights": {"x": heights, "y": 255 - heights},
        "target": torch.tensor([[0, 0], [255, 255]], dtype=torch.uint8),
        "moments": ["step 0", "step 1", "step 2"],
        "numbers": {"x": numbers, "y": numbers},
        "title": "Surfaces",
        "choice": "Method",
        "help": "Choose.",
    }
    return explorer.surfaces(**{**given, **changes})


MAKERS = [strips, a_map, some_draws, switches, surfaces]


# --- what is on the page ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
def test_an_explorer_needs_nothing_from_outside(make):
    text = make().html
    assert not re.search(r"https?:|//[\w.-]+\.\w|@import|\bfetch\(|import\(|<link|src=(?!\"data:)", text)
    assert text.count("<script") == text.count("</script>") == 2, "nothing inside may end a script"
    assert "<!--" not in text


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_arrays_give_the_same_bytes_and_others_another_mark(make):
    assert make().html == make().html
    marks = {re.search(r'data-explorer="(\w+)"', made.html)[1] for made in (make(), make(title="Another"))}
    assert len(marks) == 2


@pytest.mark.parametrize("make", MAKERS)
def test_without_a_script_there_is_a_still_image_with_a_description(make):
    before, *_ = make().html.split("<script")
    assert re.search(r'alt="(Strips|A map|Draws|Switches|Surfaces): [^"]{10,}"', before)
    assert np.asarray(still_of(make()).convert("L")).std() > 1
    assert 'data-lm-suppress-shortcuts="true"' in before, "JupyterLab would take the arrow keys"


def test_nothing_is_said_under_the_style_of_a_chapter(recwarn):
    with matplotlib.rc_context():
        plots.use_style()
        a_map()
    assert not [str(warning.message) for warning in recwarn if warning.category is UserWarning]


@pytest.mark.parametrize("make", MAKERS)
def test_titles_and_names_are_text_never_markup(make):
    made = make(title='<img src=x onerror="1">')
    assert "<img src=x" not in made.html
    assert data_of(made)["title"] == '<img src=x onerror="1">'
    assert repr(made) == 'Explorer: <img src=x onerror="1">'
    assert made._repr_html_() == made.html


def test_numbers_arrays_and_both_ranges_of_pixels_are_the_same_to_it():
    assert a_map(images=images(3, 1, 4, 4).float() / 255).html == a_map().html
    assert a_map(images=images(3, 1, 4, 4).numpy(), neighbours=np.array([[1], [2], [1]])).html == a_map().html


# --- images survive --------------------------------------------------------------------------------


def test_strips_are_rows_of_the_sprite_in_colour():
    made = strips()
    data = data_of(made)
    down = images(3, 3, 4, 4, seed=1).permute(0, 2, 3, 1)
    for step in range(3):
        image = tile(opened(data["sprite"]), data, 1 * data["columns"] + step)
        np.testing.assert_array_equal(image, down[step])
    assert data["names"] == ["up", "down"] and data["start"] == 1


def test_a_maps_images_lie_beside_its_still_also_where_they_fill_no_square():
    made = a_map()
    data = data_of(made)
    sprite = opened(data["sprite"])
    assert sprite.size == (8, 8)
    for index in range(3):
        np.testing.assert_array_equal(tile(sprite, data, index), images(3, 1, 4, 4)[index, 0])


def test_states_of_switches_run_from_all_on_to_all_off_and_points_survive():
    data = data_of(switches())
    assert data["states"] == [0, 1, 0, 1] and data["switches"] == ["a", "b"]
    found = np.frombuffer(base64.b64decode(data["points"][1]), np.int8).reshape(3, 4, 2)
    assert (found == -np.arange(24).reshape(3, 4, 2)).all()
    assert data["numbers"][0] == {"meter": [1.0, 0.5, 0.1234]} or data["numbers"][0]["meter"][2] == 0.1235


def test_surfaces_are_sent_from_the_top_down_and_points_as_they_are():
    """Rows of a picture begin at the top, those of a surface over the plane at the bottom."""
    data = data_of(surfaces(start=1))
    sent = np.frombuffer(base64.b64decode(data["surfaces"][0]), np.uint8).reshape(3, 4, 4)
    assert (sent[0, -1] == [0, 1, 2, 3]).all() and (sent[0, 0] == [12, 13, 14, 15]).all()
    points = np.frombuffer(base64.b64decode(data["points"][1]), np.uint8).reshape(3, 4, 2)
    assert (points == 255 - np.arange(24).reshape(3, 4, 2)).all()
    assert (data["side"], data["count"], data["start"], data["names"]) == (4, 4, 1, ["x", "y"])
    shades = np.frombuffer(base64.b64decode(data["shades"]), np.uint8).reshape(256, 3)
    assert shades[0].sum() < shades[-1].sum(), "low is dark"


def test_large_images_are_reduced_not_cut():
    ramp = torch.linspace(0, 1, 200).expand(3, 1, 100, 200)
    data = data_of(a_map(images=ramp))
    assert (data["width"], data["height"]) == (64, 32)


# --- places ----------------------------------------------------------------------------------------


def test_a_lattice_begins_at_the_upper_left_and_reads_like_a_page():
    codes = explorer.lattice((-1, 3, -2, 2), 3, 5)
    assert codes.shape == (3, 5, 2)
    assert codes[0, 0].tolist() == [-1, 2]
    assert codes[0, 1].tolist() == [0, 2]
    assert codes[2, 4].tolist() == [3, -2]


def test_points_are_thousandths_from_the_upper_left():
    data = data_of(a_map())
    assert (data["x"], data["y"]) == ([0, 500, 1000], [1000, 0, 500])


def test_positions_and_numbers_are_rounded_for_readers():
    data = data_of(strips(positions=[-3, -1.2e-7, 3]))
    assert data["positions"] == [-3, 0, 3]
    assert data["numbers"] == [[0.123, 2, -3], [1, 2, 3]]
    assert data_of(strips(numbers=None))["numbers"] is None


def test_draws_hold_how_far_estimates_are_above_their_bounds():
    data = data_of(some_draws())
    assert data["rises"] == [[-1.0, 0.87, 0.0], [1.0, 1.0, 1.0]]
    assert data["shares"][1] == [0.25, 0.5, 0.126]
    assert (data["counts"], data["bounds"], data["names"]) == ([1, 10], [-91.0, -81.0, -71.0], ["ELBO", "last"])


def test_nearest_agrees_with_scikit_learn_and_never_names_the_point_itself():
    from sklearn.neighbors import NearestNeighbors

    codes = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    expected = NearestNeighbors(n_neighbors=5).fit(codes.numpy()).kneighbors(return_distance=False)
    np.testing.assert_array_equal(explorer.nearest(codes, 5), expected)
    assert explorer.nearest(codes[:3], 6).shape == (3, 2)
    twins = explorer.nearest(torch.zeros(4, 2), 3)
    assert not (twins == np.arange(4)[:, None]).any()


# --- size ------------------------------------------------------------------------------------------


def test_a_thousand_noisy_images_fit_by_losing_some_detail():
    count = explorer.MOST_POINTS
    smooth = torch.nn.functional.interpolate(images(count, 3, 8, 8).float() / 255, scale_factor=4, mode="bilinear")
    points, labels = torch.randn(count, 2), torch.zeros(count, dtype=torch.long)
    neighbours = torch.zeros(count, 8, dtype=torch.long)
    made = explorer.scatter(points, smooth, labels, ["a"], neighbours, title="Many")
    assert len(made.html.encode()) <= explorer.LIMIT
    assert data_of(made)["sprite"].startswith("data:image/webp")
    assert opened(data_of(made)["sprite"]).size == (32 * 32, 32 * 32)


def test_what_does_not_fit_is_refused_with_the_remedy():
    with pytest.raises(
        ValueError,
        match=r"takes [\d,]+ bytes.*20,000 are allowed.*fewer images.*smaller",
    ):
        a_map(images=images(3, 3, 64, 64), limit=20_000)


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (a_map, {"images": images(3, 6, 5)}, r"images is \(3, 6, 5\).*\(n, C, H, W\)"),
        (a_map, {"images": images(3, 2, 6, 5)}, "C = 1 or 3"),
        (a_map, {"images": torch.full((3, 1, 3, 3), 1.2)}, r"outside \[0, 1\].*clamp"),
        (a_map, {"images": torch.full((3, 1, 3, 3), torch.nan)}, r"outside \[0, 1\]"),
        (a_map, {"images": torch.zeros(3, 1, 3, 3, dtype=torch.long)}, "or give uint8"),
        (a_map, {"points": torch.zeros(3, 3)}, r"points is \(3, 3\).*\(N, 2\)"),
        (a_map, {"points": torch.full((3, 2), torch.inf)}, "finite"),
        (a_map, {"classes": None}, "labels and classes go together"),
        (a_map, {"labels": torch.tensor([0, 1])}, r"labels is \(2,\).*\(3,\), one per point"),
        (a_map, {"labels": torch.tensor([0, 1, 3])}, "labels go from 0 to 3, but there are 3 classes"),
        (strips, {"rows": {}}, "rows is empty"),
        (
            strips,
            {"rows": {"up": images(3, 3, 4, 4), "down": images(3, 1, 4, 4)}},
            "rows.*down.*need one shape",
        ),
        (
            strips,
            {"positions": [0, 1]},
            r"rows\['up'\] is \(3, 3, 4, 4\).*each of the 2 positions",
        ),
        (strips, {"start": 3}, "start=3"),
        (
            strips,
            {"numbers": {"up": [1, 2, 3]}},
            "numbers must hold 3 numbers for each of: up, down",
        ),
        (strips, {"numbers": {"up": [1, 2], "down": [1, 2]}}, "numbers must hold 3"),
        (switches, {"recordings": {(True, True): "x"}}, "for each of the 4 states of 2 switches"),
        (switches, {"moments": ["step 0"]}, r"'x': points are int8 \(3, 4, 2\), int8 \(1, 4, 2\) is wanted"),
        (surfaces, {"moments": ["step 0"]}, r"'x': points and heights are .* \(\(1, 4, 2\), \(1, 4, 4\)\)"),
        (surfaces, {"numbers": {}}, "must have the same recordings"),
        (surfaces, {"target": torch.zeros(2, 2)}, "uint8"),
        (a_map, {"images": images(2, 1, 4, 4)}, "3 points and 2 images"),
        (some_draws, {"images": images(2, 1, 4, 4)}, r"\(2, 2\) and bounds \(2,\) are wanted for 2 images"),
        (some_draws, {"counts": [1, 2, 3]}, r"estimates and shares \(3, 3\)"),
        (
            a_map,
            {"neighbours": torch.zeros(3, 1)},
            r"neighbours is \(3, 1\): give whole numbers",
        ),
        (
            a_map,
            {"neighbours": torch.tensor([[1], [2], [3]])},
            "indices go from 0 to 2",
        ),
        (
            a_map,
            {
                "points": torch.zeros(1001, 2),
                "images": images(1001, 1, 1, 1),
                "labels": torch.zeros(1001).long(),
            },
            "1001 points: give 2 to 1000",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_points_have_their_classes_colours():
    assert data_of(a_map())["colors"] == plots.class_colors(3)


# --- the script ------------------------------------------------------------------------------------


def test_an_executed_page_can_get_a_newer_script_and_keeps_its_data():
    made = a_map().html
    old = re.sub(r"(<script data-explorer-code>).*?(</script>)", r"\1older\2", made, flags=re.S)
    assert old != made
    assert embed.refresh(old + old) == made + made
    assert embed.refresh("<p>No explorer: \\1</p>") == "<p>No explorer: \\1</p>"


def test_the_assembly_of_the_book_imports_no_torch():
    code = "import sys, lib.site.book, lib.report.embed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_merged_page_has_todays_script():
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    html = a_map().html
    old = html.replace(embed.script(), "<script data-explorer-code>older</script>")
    cell = new_code_cell(
        "1",
        outputs=[new_output("execute_result", data={"text/html": old}, execution_count=1)],
    )
    executed = new_notebook(cells=[cell])
    source = new_notebook(cells=[new_code_cell("1")])
    page = book.merge(source, nbformat.from_dict(executed))
    assert page.cells[0].outputs[0].data["text/html"] == html


# --- which point is which -----------------------------------------------------------


@pytest.mark.parametrize(("given", "start"), [({}, 1), ({"start": 0}, 0), ({"start": 2}, 2)])
def test_strips_begin_in_the_middle_or_where_they_were_told(given, start):
    assert data_of(strips(**given))["start"] == start


def test_a_map_keeps_points_images_labels_and_neighbours_together():
    data = data_of(a_map(labels=torch.tensor([2, 0, 1])))
    assert data["labels"] == [2, 0, 1] and data["neighbours"] == [[1], [2], [1]]
