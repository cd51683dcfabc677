"""Frozen features and what is measured on them."""
