"""A chapter's published runs as one file to archive: ``python -m lib.site.archive 01``.

The zip is an RO-Crate: results, the notebook as it ran, the lock, and
``ro-crate-metadata.json``, which says in terms that archives read which run made what,
from which data, by which commit, when and on which machine.
"""

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lib import commits
from lib.files import ROOT, atomic_write
from lib.site import contents, published
from lib.site.contents import BookError

CONTEXT = "https://w3id.org/ro/crate/1.1"
TYPES = {
    ".json": "application/json",
    ".npz": "application/zip",
    ".ipynb": "application/x-ipynb+json",
    ".txt": "text/plain",
}


def archive(chapter: str, out: Path, root: Path = ROOT) -> None:
    """Write a chapter's crate to ``out``.

    Raises :class:`BookError` for a chapter without published runs, and for runs of a
    commit that this repository does not hold.
    """
    files = contained(chapter, root)
    crate = json.dumps(metadata(chapter, list(files), root), indent=1)
    with atomic_write(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in {**files, "ro-crate-metadata.json": crate}.items():
            entry = zipfile.ZipInfo(name)  # of no date: the same runs, the same bytes
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


def contained(chapter: str, root: Path = ROOT) -> dict[str, bytes | str]:
    """The crate's files by name: results, and the code of each run's commit."""
    found = published.paths(chapter, root)
    if not found:
        raise BookError(f"{chapter} has no published runs: publish some first.")
    pairs = [file for path in found for file in (path, path.with_suffix(".npz"))]
    files: dict[str, bytes | str] = {path.name: path.read_bytes() for path in pairs}
    for facts in published.read(found, chapter).provenance:
        read = commits.reads(facts["commit"], root)
        for name in (f"book/{chapter}.ipynb", "requirements.txt"):
            content = read(name)
            if content is None:
                raise BookError(
                    f"{chapter}: {name} of commit {facts['commit']} is not in this "
                    "repository. Fetch the commit."
                )
            files[_at(facts["commit"], name)] = content
    return files


def metadata(chapter: str, files: list[str], root: Path = ROOT) -> dict[str, Any]:
    """What ``ro-crate-metadata.json`` says."""
    found = published.paths(chapter, root)
    runs = published.read(found, chapter).provenance
    about = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    title = contents.notebook(chapter, root).cells[0].source.splitlines()[0]
    actions = [
        _run(chapter, path.stem, facts) for path, facts in zip(found, runs, strict=True)
    ]
    whole = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{about['title']}: {title.lstrip('# ')}",
        "description": f"Published runs of the chapter {chapter}, with their code.",
        "author": {"@type": "Organization", "name": about["author"]},
        "license": {"@id": "https://spdx.org/licenses/MIT"},
        "datePublished": max(facts["date"] for facts in runs),
        "hasPart": [{"@id": name} for name in files],
        "mentions": [{"@id": action["@id"]} for action in actions],
    }
    itself = {
        "@id": "ro-crate-metadata.json",
        "@type": "CreativeWork",
        "conformsTo": {"@id": CONTEXT},
        "about": {"@id": "./"},
    }
    graph = [itself, whole, *map(_file, files), *actions, *_data(runs)]
    return {"@context": f"{CONTEXT}/context", "@graph": graph}


def _at(commit: str, name: str) -> str:
    return f"code/{commit}/{name}"


def _file(name: str) -> dict[str, Any]:
    entry = {"@id": name, "@type": "File", "encodingFormat": TYPES[Path(name).suffix]}
    if found := re.match(r"code/(\w+)/book/", name):
        code = {"@type": ["File", "SoftwareSourceCode"], "version": found.group(1)}
        return {**entry, **code, "programmingLanguage": "Python"}
    return entry


def _run(chapter: str, stem: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One run: what it made, from what, how."""
    used = json.dumps(facts["parameters"], ensure_ascii=False)
    return {
        "@id": f"#{stem}",
        "@type": "CreateAction",
        "name": f"{chapter}, {stem.replace('-', ' ')}, profile {facts['profile']}",
        "instrument": {"@id": _at(facts["commit"], f"book/{chapter}.ipynb")},
        "object": [{"@id": f"#{run['sha256'][:16]}"} for run in _sets([facts])],
        "result": [{"@id": f"{stem}.json"}, {"@id": f"{stem}.npz"}],
        "endTime": facts["date"],
        "description": f"{facts['seconds']:.0f} seconds on {facts['device']}, "
        f"{facts['system']}, Python {facts['python']}; parameters {used}",
    }


def _sets(runs: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [facts["data"] for facts in runs if "data" in facts]


def _data(runs: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    entries = {
        data["sha256"]: {
            "@id": f"#{data['sha256'][:16]}",
            "@type": "Dataset",
            "name": data["title"],
            "identifier": f"sha256:{data['sha256']}",
            "description": f"{data['training_images']} images for training, "
            f"{data['test_images']} for testing",
        }
        for data in _sets(runs)
    }
    return list(entries.values())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib.site.archive", description=__doc__.splitlines()[0]
    )
    parser.add_argument("chapter", help="its name, or the start of it")
    options = parser.parse_args(arguments)
    try:
        chapter = contents.find(options.chapter)
        out = ROOT / "_build" / "archive" / f"{chapter}.zip"
        archive(chapter, out)
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
