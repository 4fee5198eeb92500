"""Training as a compiled program: steps, loops, state, devices and clusters."""

from toyicl.training.loop import History, Job, fit
from toyicl.training.step import StartFrom, Training

__all__ = ["History", "Job", "StartFrom", "Training", "fit"]
