"""Synthetic in-context tasks: distributions over episodes."""
