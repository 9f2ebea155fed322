"""Which published numbers moved between two editions, by the rule of all verdicts."""

import shutil

import pytest
from toys import FACTS, commit_all, write_results

from lib.site import editions
from lib.site.contents import BookError


def publish(project, heights, name="01_a", **facts):
    folder = project / "published" / name
    shutil.rmtree(folder, ignore_errors=True)
    for seed, height in enumerate(heights):
        write_results(folder / f"seed-{seed}.json", seed, height, chapter=name, **facts)


@pytest.fixture
def project(tmp_path):
    publish(tmp_path, [2.0, 2.1, 2.2])
    return tmp_path


def test_a_first_edition_a_lost_one_and_no_change(project):
    first = commit_all(project)
    assert editions.between(first, None, project) == "No published number changed."
    publish(project, [1.0], "02_b")
    second = commit_all(project)
    found = editions.between(first, second, project)
    assert found == "### 02_b\n\nPublished: 1 run of profile laptop, code of `abcdef0123`."
    assert "No longer published: 1 run" in editions.between(second, first, project)


def test_numbers_that_moved_beyond_noise_are_listed_with_what_that_means(project):
    first = commit_all(project)
    publish(project, [3.0, 3.1, 3.2], commit="1234567890")
    found = editions.between(first, None, project)
    assert "Now 3 runs of profile laptop, code of `1234567890`; before 3 runs" in found
    assert "| `height` | 2.10\u00a0±\u00a00.10 m | 3.10\u00a0±\u00a00.10 m | better |" in found
    assert "1 of 1 numbers moved beyond noise" in found and "by chance" in found
    publish(project, [2.15, 2.0, 2.25])
    found = editions.between(first, None, project)
    assert "0 of 1 numbers moved beyond noise; for 1 the runs show no difference" in found
    assert "`height`" not in found and "by chance" not in found


def test_added_runs_and_other_data_are_not_compared(project):
    first = commit_all(project)
    publish(project, [2.0, 2.1, 2.2, 9.0])
    assert "Runs were added; those that were there are the same." in editions.between(first, None, project)
    publish(project, [9.0, 9.1, 9.2], data={**FACTS["data"], "sha256": "f" * 16})
    found = editions.between(first, None, project)
    assert "not comparable" in found and "`height`" not in found


def test_what_is_no_edition_is_refused_by_name(project):
    commit_all(project)
    with pytest.raises(BookError, match="zzz: no edition of the book"):
        editions.between("zzz", None, project)
