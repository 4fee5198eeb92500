"""Synthetic in-context tasks: distributions over episodes."""

from toyicl.tasks.dynamics import Dynamics
from toyicl.tasks.fixed_set import FixedSet
from toyicl.tasks.linear import DerivedTask, LinearRegression, Task
from toyicl.tasks.mixed_noise import MixedNoise
from toyicl.tasks.nonlinear import TeacherRegression
from toyicl.tasks.pool import PooledRegression
from toyicl.tasks.prompts import Classification, SequenceRegression
from toyicl.tasks.recall import Mixture, Recall
from toyicl.tasks.sine import SineRegression

__all__ = [
    "Classification",
    "DerivedTask",
    "Dynamics",
    "FixedSet",
    "LinearRegression",
    "MixedNoise",
    "Mixture",
    "PooledRegression",
    "Recall",
    "SequenceRegression",
    "SineRegression",
    "Task",
    "TeacherRegression",
]
