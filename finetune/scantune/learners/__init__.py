"""What learns from labels on a backbone."""
