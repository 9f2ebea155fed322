import base64
import io
import itertools
import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import seaborn as sns
import torch
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from lib import data
from lib.files import ROOT
from lib.report import pixels, plots


@pytest.fixture(autouse=True)
def no_window():
    matplotlib.use("agg")
    yield
    plt.close("all")


def test_a_row_of_tiles_keeps_pixels_and_order():
    images = torch.stack([torch.full((1, 3, 4), value) for value in (0.0, 0.5, 1.0)])
    row = plots.tile_row(images, gap=2)
    assert row.shape == (3, 3 * 4 + 2 * 2, 3)
    assert row[0, :, 0].tolist() == [0] * 4 + [255] * 2 + [128] * 4 + [255] * 2 + [255] * 4


def test_colour_images_keep_their_channels():
    image = torch.zeros(1, 3, 2, 2)
    image[:, 0] = 1
    assert plots.tile_row(image)[0, 0].tolist() == [255, 0, 0]


def test_each_row_of_a_grid_carries_its_label():
    fig = plots.image_rows({"input": torch.rand(3, 1, 4, 4), "AE": torch.rand(3, 1, 4, 4)})
    assert [ax.get_ylabel() for ax in fig.axes] == ["input", "AE"]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_classes_are_named_at_their_centres(dimensions):
    ax = plt.figure().add_subplot(projection="3d" if dimensions == 3 else None)
    z = np.repeat(np.eye(3, dimensions), 5, axis=0)
    plots.latent_scatter(ax, z, np.repeat([0, 1, 2], 5), ["a", "b", "c", "absent"])
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]


def test_a_distance_is_written_once_per_pair():
    ax = plt.figure().add_subplot()
    points = np.array([0.0, 1.0, 3.0])
    plots.distance_heatmap(ax, np.abs(points[:, None] - points), ["a", "b", "c"])
    assert sorted(text.get_text() for text in ax.texts) == ["1.0", "2.0", "3.0"]


def test_every_class_has_one_colour():
    assert plots.class_colors(3) == plots.class_colors(10)[:3] == plots.PALETTE[:3]
    assert list(sns.color_palette("colorblind").as_hex()) == plots.PALETTE
    assert len(set(plots.class_colors(14))) == 14


def test_panels_share_one_row_of_class_colours():
    z = np.random.default_rng(0).normal(size=(60, 2))
    names = ["a", "b", "c"]
    fig = plots.scatter_row(
        {"AE": z, "VAE": torch.from_numpy(z)},
        np.arange(60) % 3,
        names,
        {"AE": "first"},
        2.4,
    )
    assert [ax.get_title() for ax in fig.axes] == ["first", "VAE"]
    assert not any(ax.texts for ax in fig.axes), "a small panel has no room for names"
    assert [text.get_text() for text in fig.legends[0].get_texts()] == names
    assert fig.axes[0].patches[0].radius == 2.4


def overlapping(boxes):
    return [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


def extents(ax, texts):
    ax.figure.canvas.draw()
    found = [text for text in ax.texts if text.get_text() in texts]
    assert len(found) == len(texts)
    return [Text.get_window_extent(text) for text in found]


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_points_lie_apart_and_inside(seed):
    plots.use_style()
    _, ax = plt.subplots()
    points = np.random.default_rng(seed).normal(size=(14, 2))
    points[1::2] = points[::2] + 0.03
    ax.plot(*points.T, "o-")
    texts = [f"σ = {i}, long" for i in range(14)]
    plots.label_points(ax, points, texts)
    boxes = extents(ax, texts)
    assert not overlapping(boxes)
    frame = ax.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert all(frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_labels_keep_clear_of_the_curve_where_they_can():
    _, ax = plt.subplots()
    ax.plot([0, 1], [0, 1])
    note, *_ = plots.label_points(ax, [[0.5, 0.5]], ["middle"])
    ax.figure.canvas.draw()
    box = Text.get_window_extent(note)
    line = ax.transData.transform(np.linspace([0, 0], [1, 1], 500))
    assert not any(box.contains(x, y) for x, y in line)


def test_curves_are_named_at_their_ends_apart():
    plots.use_style()
    _, ax = plt.subplots()
    steps = np.arange(10)
    runs = np.stack([steps, steps + 2.0])
    plots.curves(ax, {"AE": (steps, runs), "VAE": (steps, steps + 1.0), "other": (steps, -steps)})
    assert not overlapping(extents(ax, ["AE", "VAE", "other"]))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), steps + 1)
    assert len(ax.collections) == 1, "a band where there are runs"
    used = [line.get_color() for line in ax.lines]
    assert used[:2] == [plots.COLORS["AE"], plots.COLORS["VAE"]]
    assert to_rgb(used[2]) not in plots.COLORS.values()


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_dots_carry_their_values_inside_the_axes(scale):
    plots.use_style()
    _, ax = plt.subplots()
    ax.set_xscale(scale)
    plots.dots(ax, ["AE", "VAE", "PCA"], [3, 20, 1], [0.5, 4, np.nan])
    boxes = extents(
        ax, ["3.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.50", "20.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}4.0", "1.00"]
    )
    assert max(box.x1 for box in boxes) <= ax.get_window_extent().x1
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["AE", "VAE", "PCA"]
    assert boxes[0].y0 > boxes[1].y0 > boxes[2].y0, "the first is on top"


def test_figures_need_no_torch_and_little_time():
    code = "import sys, lib.report.plots, lib.report.explorer, lib.report.player;"
    code += "sys.exit(bool({'torch', 'seaborn', 'pandas'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_pixels_become_the_same_bytes_as_everywhere():
    x = torch.cat([torch.linspace(-0.2, 1.2, 4001), torch.arange(511) / 510])
    np.testing.assert_array_equal(pixels.to_bytes(x), data.to_bytes(x))
    np.testing.assert_array_equal(pixels.to_bytes(x.numpy()), data.to_bytes(x))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32])
def test_tensors_are_taken_as_arrays(dtype):
    x = torch.ones(2, 3, dtype=dtype)
    x = x.requires_grad_() if dtype.is_floating_point else x
    assert pixels.as_array(x).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_users_own_settings_reach_no_figure(tmp_path, monkeypatch):
    (tmp_path / "matplotlibrc").write_text("backend: svg\nlines.linewidth: 9\n")
    (tmp_path / "profile_default").mkdir()
    (tmp_path / "profile_default" / "ipython_config.py").write_text(
        "c = get_config()\nc.InlineBackend.figure_formats = {'svg'}\n"
    )
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    code = "from lib.report import plots; plots.use_style()\n"
    code += "plt = plots.plt; plt.plot([0, 1]); print(plt.rcParams['lines.linewidth'])"
    cells = [new_code_cell(code), new_code_cell("fig, ax = plt.subplots()")]
    notebook = new_notebook(cells=cells)
    NotebookClient(notebook, resources={"metadata": {"path": ROOT}}).execute()
    printed = [output.text for output in cells[0].outputs if output.output_type == "stream"]
    assert printed == ["1.5\n"]
    for cell in notebook.cells:
        images = [output.data for output in cell.outputs if output.output_type == "display_data"]
        assert ["image/png" in image and "image/svg+xml" not in image for image in images] == [True]
        png = Image.open(io.BytesIO(base64.b64decode(images[0]["image/png"])))
        assert png.size == (1125, 540), "as wide as it was asked for"


def test_figures_come_out_on_white_ground():
    plots.use_style()
    assert matplotlib.rcParams["savefig.facecolor"] == "white"
    assert matplotlib.rcParams["font.size"] >= 11


# --- chapter 3 -----------------------------------------------------------------------


def test_captions_stand_over_the_middle_of_their_columns():
    images = torch.zeros(3, 1, 8, 8)
    fig = plots.captioned_rows({"a": images, "b": images}, ["-1", "-2", "-3"], gap=2)
    captions = {text.get_text(): text.xy[0] for text in fig.axes[0].texts}
    assert captions == {"-1": 4, "-2": 14, "-3": 24}
    assert not fig.axes[1].texts


def test_long_row_labels_stay_on_the_figure():
    plots.use_style()
    fig = plots.image_rows({name: torch.rand(5, 1, 8, 8) for name in ("input", "exponential", "a longer label")})
    fig.canvas.draw()
    renderer = fig.canvas.get_renderer()
    assert min(ax.yaxis.label.get_window_extent(renderer).x0 for ax in fig.axes) >= 0
    plt.close(fig)


# --- chapter 4 -----------------------------------------------------------------------


def test_a_grid_fills_its_last_row_with_white():
    grid = plots.grid(torch.zeros(5, 1, 4, 4), columns=3, gap=1)
    assert grid.shape == (9, 14, 3)
    assert (grid[5:, 10:] == 255).all() and (grid[:4, :4] == 0).all()


def test_a_film_rests_on_its_last_frame():
    frames = [np.full((8, 9, 3), value, np.uint8) for value in (0, 100, 250)]
    film = Image.open(io.BytesIO(plots.film(frames, step=100, hold=900).data))
    durations = []
    for moment in range(film.n_frames):
        film.seek(moment)
        durations.append(film.info["duration"])
    assert durations == [100, 100, 900]
    assert np.asarray(film.convert("RGB"))[0, 0] == pytest.approx([250] * 3, abs=4)


def test_a_headed_image_is_enlarged_under_its_text():
    frame = plots.headed(np.zeros((5, 60, 3), np.uint8), "step 1", scale=2)
    assert frame.shape == (36, 120, 3)
    assert (frame[26:] == 0).all() and 0 < (frame[:26] == 0).mean() < 0.5


def test_a_photograph_of_a_figure_is_its_jpeg_and_closes_it():
    fig = plots.image_rows({"noise": torch.rand(3, 3, 8, 8)})
    size = tuple((fig.get_size_inches() * fig.dpi).astype(int))
    image = Image.open(io.BytesIO(plots.photograph(fig).data))
    assert image.format == "JPEG" and image.size == size
    assert not plt.fignum_exists(fig.number)


# --- colours go by class ------------------------------------------------------------


def test_points_have_the_colours_of_their_classes_also_where_a_class_is_absent():
    ax = plt.figure().add_subplot()
    plots.latent_scatter(ax, np.arange(8.0).reshape(4, 2), np.array([2, 0, 2, 3]), ["a", "b", "c", "d"])
    colors = plots.class_colors(4)
    expected = [to_rgb(colors[label]) for label in (2, 0, 2, 3)]
    np.testing.assert_allclose(ax.collections[0].get_facecolors()[:, :3], expected)
    frames = {text.get_text(): text.get_bbox_patch().get_edgecolor()[:3] for text in ax.texts}
    assert frames == {name: to_rgb(colors["abcd".index(name)]) for name in "acd"}


def test_rows_of_images_stand_beside_their_own_labels():
    rows = {"black": torch.zeros(2, 1, 4, 4), "white": torch.ones(2, 1, 4, 4), "grey": torch.full((2, 1, 4, 4), 0.5)}
    shown = {ax.get_ylabel(): np.asarray(ax.images[0].get_array()).max() for ax in plots.image_rows(rows, gap=0).axes}
    assert shown == {"black": 0, "white": 255, "grey": 128}
