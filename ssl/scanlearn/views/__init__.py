"""The dial: from a packed scan and a scale to augmented views."""
