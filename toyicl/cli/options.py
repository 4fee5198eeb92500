"""What can be said on the command line: each command with its options, whose words are its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

RUNS, FIGURES = Path("runs"), Path("figures")
Names = Annotated[tuple[str, ...], tyro.conf.Positional]


@dataclass(frozen=True)
class List:
    """Every experiment: what it claims, what it costs, whether it has been run."""

    out: Path = RUNS
    """Folder of the runs."""
    runs: bool = False
    """List the runs of the folder instead: where each comes from, and how far it is."""


@dataclass(frozen=True)
class Run:
    """Train, measure, save, draw, and print the verdicts.

    `toyicl run fig2 --help` lists that experiment's own settings as well.
    """

    experiments: Names
    """Experiments to run: names, paths to experiment files, or all."""
    seeds: int = 5
    """How many seeds: 0, 1, ..."""
    quick: bool = False
    """Start from the experiment's quick settings instead of its full ones."""
    out: Path = RUNS
    """Folder of the runs; each experiment writes into a folder of its name there."""
    fresh: bool = False
    """Start over, instead of carrying on the run that is in the folder."""
    checkpoint_every: float | None = None
    """Seconds between two checkpoints. Default: chosen automatically, at most 2% overhead."""
    lock: bool = True
    """Lock the folder of the run against other processes; --no-lock for file systems without locks."""
    sweep: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """SETTING=VALUE,VALUE,... such as task.input_range=0.5,1,2, or SETTING=FIRST:LAST:COUNT; given
    again, a grid is run."""
    shard: Literal["run", "batch"] = "run"
    """What devices share: each has runs of its own, or all have their part of one run's batches."""
    distributed: bool = False
    """Run in all processes of a cluster: Slurm, Open MPI, Kubernetes or a TPU pod, if nothing below
    says otherwise."""
    coordinator: str | None = None
    """HOST:PORT of process 0, with --distributed."""
    processes: int | None = None
    """Number of processes, with --distributed."""
    rank: int | None = None
    """Number of this process, from 0, with --distributed."""
    patience: float = 60.0
    """Seconds to wait for the other processes."""


@dataclass(frozen=True)
class Probe:
    """Turn a dial from linear attention on linear tasks to something else, and measure along it.

    Trains at every value of an axis, and sets each model beside gradient descent and beside itself
    before training. A second axis makes a map. Without an axis, all axes are listed.
    """

    axis: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """The dial, such as attention.softmax; given twice, a map is measured."""
    values: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """FIRST:LAST:COUNT or VALUE,VALUE,... for each axis in turn; left out, the axis's own."""
    seeds: int = 5
    """How many seeds: 0, 1, ..."""
    quick: bool = False
    """Fewer and smaller training steps."""
    tolerance: float = 0.05
    """Share of its answers that a model may leave to be called explained."""
    out: Path = RUNS
    """Folder of the runs; the probe writes into a folder named after its axes there."""
    fresh: bool = False
    """Start over, instead of carrying on the run that is in the folder."""


@dataclass(frozen=True)
class Draw:
    """Redraw figures from saved results; nothing is trained."""

    experiments: Names
    """Experiments to draw: names, paths to experiment files, folders of runs such as those of probes,
    or all."""
    out: Path | None = None
    """Folder of the runs. Default: runs/, and figures/ for experiments that are not there."""
    lock: bool = True
    """Lock the folder of each run against other processes; --no-lock for file systems without locks."""


@dataclass(frozen=True)
class Verify:
    """Each claim: the paper's value, ours with its range over seeds, the exact floor, a verdict.

    Without names, all experiments are verified, and REPORT.md and REPORT.html are written: into
    --out, or into figures/ if it is left out.
    """

    experiments: Names = ()
    """Experiments to verify; all if none is named."""
    out: Path | None = None
    """Folder of the runs; left out, runs/, or figures/ where runs/ has none or a quick one alone."""
    json: bool = False
    """Print one JSON document and nothing else."""


@dataclass(frozen=True)
class Floors:
    """Exact references on linear regression: predict-0, GD, GD++, ridge and Bayes, and their steps."""

    dim: int = 10
    """Number of inputs, d."""
    context_size: int = 10
    """Number of labelled points, N."""
    input_range: float = 1.0
    """Width r of the inputs' law U(-r/2, r/2)."""
    noise: float = 0.0
    """Standard deviation of the label noise."""
    steps: int = 5
    """Largest number of steps."""
    json: bool = False
    """Print one JSON document and nothing else."""


@dataclass(frozen=True)
class Demo:
    """The teaching page: one file that needs no network, made of real runs, and opened in the browser.

    Made of a full run of `classroom` in runs/ if there is one, else of what comes with the program;
    where there is neither, its quick settings are trained.
    """

    out: Path = Path("toyicl.html")
    """The file to write."""
    open: bool = True
    """Open it in the browser."""
