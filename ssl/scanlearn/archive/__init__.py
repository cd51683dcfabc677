"""Packed scans on disk."""
