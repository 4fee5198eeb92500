"""Measures of learners: losses, comparisons, analyses of weights and of predictions, and costs."""
