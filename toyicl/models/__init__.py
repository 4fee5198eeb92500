"""Trainable models: tokens, attention, transformers, and weights constructed by hand."""
