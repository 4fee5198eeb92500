"""Foundations without learning: episodes, learners, settings, errors, and helpers for datasets."""
