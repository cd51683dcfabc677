"""What may be done to a view."""
