"""Arms that differ in the augmentation scale, compared."""
