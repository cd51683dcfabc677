"""Learners that train a network, or a probe, step by step."""
