# Measures chapters with papermill, tells them from results, and builds the book. Snakemake decides what must run
# again by digests of what things depend on (lib/site/engine.py): a chapter is measured again if its measuring
# cells, the files of lib that they import, its parameters or the lock changed in meaning; told again if its
# cells, results or lib/report did.
import atexit
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, workflow.basedir)  # before any other lib that a PYTHONPATH offers

from lib.site import book, engine, guard, old_way, sweep

MEASURING = str(config.get("measure", "yes")) not in ("no", "False")  # else pages are made of what is there
try:
    CHAPTERS = book.chapters()
    CONVERTED = [name for name in CHAPTERS if book.converted(name)]
    UNCONVERTED = [name for name in CHAPTERS if name not in CONVERTED]
    PAGES = book.pages()  # notebooks that only read what chapters measured
    PROFILE = engine.profile(config.get("profile", "demo"))
    SEEDS = engine.seeds(config.get("seeds", 0))
    SWEEP = sweep.read(str(config["sweep"])) if "sweep" in config else None
    ARGS = engine.given(os.environ.get("LWL_ARGS", ""))  # papermill's own -p name value …, for runs named "custom"
except book.BookError as error:
    raise WorkflowError(str(error)) from None
# Jobs see the project's settings, not the user's.
settings = engine.settings(os.environ)
os.environ.clear()
os.environ.update(settings)
STARTED = time.time()
# Chapters take a GPU where there is one: then one at a time.
GPUS = int(shutil.which("nvidia-smi") is not None)
PYTHON = shlex.quote(sys.executable)
# A chapter gets so many cores; with more of them, more chapters run beside each other. One thread is as fast as two
# for most networks here, and many times as fast where something else runs: threads that wait spin against it.
THREADS = int(config.get("threads", 1))

if workflow.is_main_process and not workflow.dryrun:
    if said := guard.take_over():
        print(said, file=sys.stderr)
    if SWEEP:
        sweep.watch(logger, len(SWEEP.runs()))


def measuring(profile, environment="", then="true"):
    """The command of a run: it ends with this process, and leaves the executed notebook beside its results.

    Once results are written, a cell that cannot tell them does not throw them away: telling says it again.
    """
    return (
        f"results={{output[0]}}; {environment} OMP_NUM_THREADS={{threads}} LWL_PROGRESS=$PWD/{{log.progress}}"
        f" LWL_RESULTS=$PWD/$results LWL_PROFILE={profile} LWL_TELL="
        f" {PYTHON} -m lib.site.guard {os.getpid()}"
        f" {PYTHON} -m papermill --no-progress-bar {{input[0]}} {{log.notebook}} {{params.arguments}}"
        f" > {{log.text}} 2>&1 && mv {{log.notebook}} ${{{{results%.json}}}}.ipynb && {then}"
        f" || {{{{ test -s $results && echo 'A cell failed after the results were written: {{log.text}}' >&2; }}}}"
    )


wildcard_constraints:
    run=r"[\w.-]+",
    profile=r"[\w.-]+",
    seed=r"\d+",


# Quick, or in need of a network: on a cluster, they stay where Snakemake is.
localrules:
    book,
    chapters,
    tell,
    page,
    html,
    sweep,
    sweep_data,


def runs(names, seeds=SEEDS):
    """What executing chapters with the profile leaves."""
    return [path for name in names for path in engine.target(name, PROFILE, seeds)]


def one_of(names):
    return "|".join(names) or "none"


rule book:
    input:
        "_build/html/index.html",
        runs(CHAPTERS),


rule chapters:
    input:
        runs(CHAPTERS),


rule measure:
    input:
        ancient("book/{chapter}.ipynb"),
    output:
        "_build/results/{run}/{chapter}/seed-{seed}.json",
        "_build/results/{run}/{chapter}/seed-{seed}.npz",
    params:
        code=lambda wildcards: engine.code_of(wildcards.chapter),
        lock=engine.lock(),
        arguments=lambda wildcards: engine.arguments(wildcards.chapter, wildcards.run, wildcards.seed, ARGS),
    wildcard_constraints:
        chapter=one_of(CONVERTED),
    log:
        # Execution happens in the log file, which Snakemake keeps when a job fails: what ran stays readable.
        notebook="_build/logs/{run}/{chapter}-{seed}.ipynb",
        text="_build/logs/{run}/{chapter}-{seed}.txt",
        progress="_build/logs/{run}/{chapter}-{seed}.progress",
    threads: THREADS
    resources:
        gpu=lambda wildcards: max(GPUS, int(wildcards.run.startswith("paper"))),
        mem_mb=lambda wildcards, attempt: attempt * engine.megabytes(wildcards.chapter, wildcards.run),
        runtime=lambda wildcards, attempt: attempt * engine.minutes(wildcards.chapter, wildcards.run),
    shell:
        measuring("{wildcards.run}")


# A run of a sweep: the same command for a chapter, with a combination of parameters.
rule sweep_run:
    input:
        ancient(lambda wildcards: f"book/{SWEEP.chapter}.ipynb"),
        ancient(lambda wildcards: list(SWEEP.data(wildcards.setting))),
    output:
        "_build/sweeps/{sweep}/{setting}/seed-{seed}.json",
        "_build/sweeps/{sweep}/{setting}/seed-{seed}.npz",
    params:
        code=lambda wildcards: engine.code_of(SWEEP.chapter),
        lock=engine.lock(),
        arguments=lambda wildcards: SWEEP.arguments(wildcards.setting, wildcards.seed),
        profile=lambda wildcards: SWEEP.profile + engine.CUSTOM,
        # Of its own, to be removed with what they are for: a thousand runs would fill a disk.
        checkpoints=lambda wildcards: f"_build/checkpoints/sweeps/{wildcards.sweep}/{wildcards.setting}-{wildcards.seed}",
    log:
        notebook="_build/logs/sweeps/{sweep}/{setting}/seed-{seed}.ipynb",
        text="_build/logs/sweeps/{sweep}/{setting}/seed-{seed}.txt",
        progress="_build/logs/sweeps/{sweep}/{setting}/seed-{seed}.progress",
    threads: THREADS
    resources:
        gpu=lambda wildcards: max(GPUS, int(SWEEP.profile == "paper")),
        mem_mb=lambda wildcards, attempt: attempt * engine.megabytes(SWEEP.chapter, SWEEP.profile),
        runtime=lambda wildcards, attempt: attempt * engine.minutes(SWEEP.chapter, SWEEP.profile),
    shell:
        measuring("{params.profile}", "LWL_CHECKPOINTS=$PWD/{params.checkpoints}", "rm -rf {params.checkpoints}")


# Data sets are read once, here, before runs that would all do it at the same time, or on nodes without a network.
rule sweep_data:
    output:
        touch("_build/sweeps/{sweep}/data/{set}.ready"),
    params:
        wanted=lambda wildcards, output: shlex.join(SWEEP.data()[output[0]]),
    log:
        "_build/sweeps/{sweep}/data/{set}.txt",
    shell:
        "{PYTHON} -c 'import sys; from lib import data; data.load(sys.argv[1], sys.argv[2] or None)'"
        " {params.wanted} > {log} 2>&1"


rule sweep:
    input:
        [run.results for run in SWEEP.runs()] if SWEEP else [],


rule tell:
    input:
        ancient("book/{chapter}.ipynb"),
        lambda wildcards: engine.results(wildcards.chapter, wildcards.profile, SEEDS, MEASURING),
    output:
        "_build/told/{profile}/{chapter}.ipynb",
    params:
        made_from=lambda wildcards: engine.told_from(wildcards.chapter),
        lock=engine.lock(),
    wildcard_constraints:
        chapter=one_of(CONVERTED),
    log:
        "_build/logs/tell-{profile}-{chapter}.txt",
    shell:
        "{PYTHON} -m lib.site.tell {wildcards.chapter} --profile {wildcards.profile} --out {output} > {log} 2>&1"
        " || {{ cat {log} >&2; false; }}"


rule page:
    input:
        ancient("book/{page}.ipynb"),
        expand("_build/told/{{profile}}/{chapter}.ipynb", chapter=CONVERTED),
    output:
        "_build/told/{profile}/{page}.ipynb",
    params:
        made_from=lambda wildcards: engine.numbers_from(wildcards.page),
        lock=engine.lock(),
    wildcard_constraints:
        page=one_of(PAGES),
    log:
        "_build/logs/tell-{profile}-{page}.txt",
    shell:
        "{PYTHON} -m lib.site.tell {wildcards.page} --profile {wildcards.profile} --out {output} > {log} 2>&1"
        " || {{ cat {log} >&2; false; }}"


def executed_the_old_way():
    """Runs that pages of unconverted chapters are made of: those that no published run stands in for."""
    names = [name for name in UNCONVERTED if PROFILE != "demo" or old_way.published(name) is None]
    return [path for path in runs(names) if MEASURING or Path(path).exists()]


rule html:
    input:
        expand("_build/told/{profile}/{name}.ipynb", profile=PROFILE, name=CONVERTED + PAGES),
        executed_the_old_way(),
    output:
        "_build/html/index.html",
    params:
        profile=PROFILE,
        made_from=lambda wildcards: engine.book_from(),
        lock=engine.lock(),
        repository=shlex.quote(os.environ.get("LWL_REPOSITORY", "")),
        site=shlex.quote(os.environ.get("LWL_SITE", "")),
    log:
        "_build/logs/html.txt",
    shell:
        "{PYTHON} -m lib.site.book build --profile {params.profile} --repository {params.repository}"
        " --site {params.site} > {log} 2>&1"
        # Of a thousand lines, those that say what is wrong.
        " || {{ grep -E 'WARNING|ERROR|CRITICAL' {log} >&2 || cat {log} >&2; false; }}"


# The old way, for chapters that do not measure and tell apart yet.
rule chapter:
    input:
        ancient("book/{chapter}.ipynb"),
    output:
        "_build/runs/{run}/{chapter}.ipynb",
    params:
        code=lambda wildcards: engine.code_of(wildcards.chapter),
        lock=engine.lock(),
        arguments=lambda wildcards: engine.arguments(wildcards.chapter, wildcards.run, "", ARGS),
    wildcard_constraints:
        chapter=one_of(UNCONVERTED),
    log:
        notebook="_build/logs/{run}/{chapter}.ipynb",
        text="_build/logs/{run}/{chapter}.txt",
        progress="_build/logs/{run}/{chapter}.progress",
    threads: THREADS
    resources:
        gpu=lambda wildcards: max(GPUS, int(wildcards.run.startswith("paper"))),
        mem_mb=lambda wildcards, attempt: attempt * engine.megabytes(wildcards.chapter, wildcards.run),
        runtime=lambda wildcards, attempt: attempt * engine.minutes(wildcards.chapter, wildcards.run),
    shell:
        "OMP_NUM_THREADS={threads} LWL_PROGRESS=$PWD/{log.progress}"
        " {PYTHON} -m papermill --no-progress-bar {input} {log.notebook} {params.arguments} > {log.text} 2>&1"
        " && mv {log.notebook} {output}"


def report_failures():
    # Of this call alone. (After a good run Snakemake puts an empty file where the log notebook was.)
    logs = [(path, path.stat()) for path in Path("_build/logs").glob("*/*.ipynb")]
    book.report_failures([path for path, stat in logs if stat.st_size and stat.st_mtime >= STARTED])


onerror:
    # At exit, so that it is the last thing printed: which chapter stopped, in which cell, and why.
    atexit.register(report_failures)
