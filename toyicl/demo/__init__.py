"""The teaching page."""
