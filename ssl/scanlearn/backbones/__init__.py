"""timm backbones: how they are built, what runs them fast, their export and strict loading."""
