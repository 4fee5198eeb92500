"""Closed forms and numerically exact values of optimal steps and losses."""
