"""The site's hook: pages keep their paths in the repository, so that every link holds in both."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("README.md", "CHANGELOG.md", "benchmarks/RESULTS.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Returns the theme's files, those of docs/ under that name, and the pages beside it."""
    kept = []
    for file in files:
        if file.abs_src_path and Path(file.abs_src_path).is_relative_to(ROOT / "docs"):
            file = File.generated(config, f"docs/{file.src_uri}", abs_src_path=file.abs_src_path)
        kept.append(file)
    kept += [File.generated(config, name, abs_src_path=str(ROOT / name)) for name in BESIDE]
    return Files(kept)
