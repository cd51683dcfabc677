"""From files to a packed archive."""
