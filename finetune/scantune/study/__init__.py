"""The comparison of arms."""
