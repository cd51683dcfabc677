"""Label tables become labeled sets."""
