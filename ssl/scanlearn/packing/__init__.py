"""A folder or table of scans becomes an archive."""
