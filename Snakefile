# Executes chapters with papermill and builds the book from them. Snakemake decides what must run again:
# a chapter does if its code cells, the parameters it gets, a lib file it can use or the lock changed in
# content. Its prose does not count: the page takes that from the source when the book is assembled.
import atexit
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import yaml

from lib.site import book

PROFILE = config.get("profile", "demo")
CHAPTERS = book.chapters()
PAGES = book.pages()  # notebooks that only read what chapters measured
PUBLISHED = sorted(map(str, Path("published").glob("*")))
ARGS = os.environ.get("LWL_ARGS", "")  # papermill's own -p name value …, for runs named "custom"
STARTED = time.time()
# Chapters take a GPU where there is one: then one at a time.
GPUS = int(shutil.which("nvidia-smi") is not None)
PYTHON = shlex.quote(sys.executable)
JUPYTER_BOOK = shlex.quote(str(Path(sys.executable).with_name("jupyter-book")))

# A chapter gets so many cores; with more of them, more chapters run beside each other.
THREADS = int(config.get("threads", 2))


wildcard_constraints:
    run=r"[\w.]+",
    chapter="|".join(CHAPTERS),
    page="|".join(PAGES) or "none",


rule book:
    input:
        "_build/html/index.html",
        expand("_build/runs/{run}/{chapter}.ipynb", run=PROFILE, chapter=CHAPTERS),


rule chapters:
    input:
        expand("_build/runs/{run}/{chapter}.ipynb", run=PROFILE, chapter=CHAPTERS),


# What changes no output of a chapter. (An explorer's script, embed's, is put in anew at assembly.)
ASIDE = ["lib/book.py", "lib/published.py", "lib/offline.py", "lib/embed.py"]


def papermill_arguments(wildcards):
    """`-p name value` for all that the profile and, in a custom run, the command line set."""
    values = book.parameters(wildcards.chapter, wildcards.run.removesuffix(".custom"))
    # (As YAML, not as Python writes it: 1e-06 would come back as text.)
    blocks = [yaml.safe_dump({name: value}, default_flow_style=True, width=10**9).strip() for name, value in values.items()]
    given = [f"-y {shlex.quote(block)}" for block in blocks]
    return " ".join(given + [ARGS] * wildcards.run.endswith(".custom"))


rule chapter:
    input:
        lib=[path for path in sorted(map(str, Path("lib").glob("*.py"))) if path not in ASIDE],
        lock="requirements.txt",
        notebook=ancient("book/{chapter}.ipynb"),
    output:
        "_build/runs/{run}/{chapter}.ipynb",
    params:
        code=lambda wildcards: book.code_digest(Path(f"book/{wildcards.chapter}.ipynb")),
        parameters=papermill_arguments,
        python=PYTHON,
    log:
        # Execution happens in the log file, which Snakemake keeps when a job fails: what ran stays readable.
        notebook="_build/logs/{run}/{chapter}.ipynb",
        text="_build/logs/{run}/{chapter}.txt",
        progress="_build/logs/{run}/{chapter}.progress",
    threads: THREADS
    resources:
        gpu=lambda wildcards: max(GPUS, int(wildcards.run.startswith("paper"))),
    shell:
        # Threads that wait may spin, as is OpenMP's default, since a chapter has its cores for itself: sent to sleep
        # early (GOMP_SPINCOUNT=3000), two threads took 124 to 190 ms for a step of chapter 4, in place of 115.
        "OMP_NUM_THREADS={threads} LWL_PROGRESS=$PWD/{log.progress}"
        " {params.python} -m papermill --no-progress-bar {input.notebook} {log.notebook} {params.parameters}"
        " > {log.text} 2>&1 && mv {log.notebook} {output}"


rule page:
    input:
        notebook="book/{page}.ipynb",
        published=PUBLISHED,
        lib=sorted(map(str, Path("lib").glob("*.py"))),
        lock="requirements.txt",
    output:
        "_build/pages/{page}.ipynb",
    params:
        python=PYTHON,
    log:
        "_build/logs/{page}.txt",
    shell:
        "{params.python} -m papermill --no-progress-bar {input.notebook} {output} > {log} 2>&1"
        " || {{ cat {log} >&2; false; }}"


rule html:
    input:
        # A chapter whose published run fits is shown from it.
        lambda wildcards: expand(
            "_build/runs/{run}/{chapter}.ipynb",
            run=PROFILE,
            chapter=[name for name in CHAPTERS if PROFILE != "demo" or book.published(name) is None],
        ),
        expand("_build/pages/{page}.ipynb", page=PAGES),
        PUBLISHED,
        pages=[
            str(path)
            for path in sorted(Path("book").glob("**/*"))
            if path.is_file() and not any(part.startswith(".") for part in path.parts)
        ],
        assembly=ASIDE + sorted(map(str, Path("lib").glob("explorer.*"))),
        configuration=["_config.yml", "_toc.yml"],
    output:
        "_build/html/index.html",
    params:
        profile=PROFILE,
        repository=shlex.quote(os.environ.get("LWL_REPOSITORY", "")),
        site=shlex.quote(os.environ.get("LWL_SITE", "")),
        python=PYTHON,
        jupyter_book=JUPYTER_BOOK,
    log:
        "_build/logs/html.txt",
    shell:
        "({params.python} -m lib.site.book assemble --profile {params.profile}"
        " --repository {params.repository} --site {params.site} &&"
        " {params.jupyter_book} build --all -W -n --keep-going --path-output . _build/source) > {log} 2>&1"
        " || {{ cat {log} >&2; false; }}"


def report_failures():
    # Of this call alone. (After a good run Snakemake puts an empty file where the log notebook was.)
    logs = [(path, path.stat()) for path in Path("_build/logs").glob("*/*.ipynb")]
    failed = [path for path, stat in logs if stat.st_size and stat.st_mtime >= STARTED]
    book.main(["failure", *map(str, failed)])


onerror:
    # At exit, so that it is the last thing printed: which chapter stopped, in which cell, and why.
    atexit.register(report_failures)
