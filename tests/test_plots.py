import io

import imageio.v3 as iio
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from lib.report import plots


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


def test_a_walk_goes_there_and_back_and_rests_at_its_ends():
    moments = torch.linspace(0, 1, 5)[:, None, None, None, None].expand(5, 2, 1, 8, 8)
    shown = plots.walk_gif({"AE": moments, "VAE": moments}, hold=500, step=50)
    frames = iio.imread(io.BytesIO(shown.data), index=None)
    assert len(frames) == 8
    brightness = frames[:, 10, -10, 0].astype(int)
    assert (np.diff(brightness[:5]) > 0).all() and (np.diff(brightness[4:]) < 0).all()
    with Image.open(io.BytesIO(shown.data)) as gif:
        durations = []
        for number in range(gif.n_frames):
            gif.seek(number)
            durations.append(gif.info["duration"])
    assert durations == [500, 50, 50, 50, 500, 50, 50, 50]


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


def test_figures_come_out_on_white_ground():
    plots.use_style()
    assert matplotlib.rcParams["savefig.facecolor"] == "white"
    assert matplotlib.rcParams["font.size"] >= 11


# --- chapter 3 -------------------------------------------------------------------------------------


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


# --- chapter 4 -------------------------------------------------------------------------------------


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
