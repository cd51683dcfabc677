"""Duplicates and leaks between sets of scans."""
