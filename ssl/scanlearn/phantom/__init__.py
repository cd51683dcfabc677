"""Synthetic eyes with planted tasks."""
