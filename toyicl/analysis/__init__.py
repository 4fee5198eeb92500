"""Measures of learners: losses, comparisons, what weights and predictions reveal, and costs."""
