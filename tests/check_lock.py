"""Is what is installed what `requirements.lock` says? Exit code 1 and the differences if not.

Packages that only some platforms pull in (CUDA libraries of torch, for one) are not in the lock and are named apart.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
PLATFORM_ONLY = re.compile(r"nvidia-.*|cuda-.*|triton|pip|setuptools|wheel")


def canonical(name: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    """The pins of the lock file."""
    lines = [line.split("#")[0].split(";")[0].strip() for line in LOCK.read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if line)
    return {canonical(name): version for name, version in pins.items()}


def installed() -> dict[str, str]:
    """What this environment holds, local version labels (`+cpu`) left out."""
    found = {canonical(d.metadata["Name"]): d.version.partition("+")[0] for d in metadata.distributions()}
    found.pop("gristmill", None)
    return found


def main() -> int:
    """Compare, print, and say by the exit code whether they agree."""
    want, have = locked(), installed()
    wrong = [
        f"{name}: locked {version}, installed {have.get(name, 'nothing')}"
        for name, version in want.items()
        if have.get(name) != version
    ]
    extra = sorted(name for name in have if name not in want and not PLATFORM_ONLY.fullmatch(name))
    for line in wrong:
        print(line)
    for name in extra:
        print(f"{name} {have[name]} is installed but not in the lock")
    if not wrong and not extra:
        print(f"{len(want)} packages are installed as {LOCK.name} says")
    return 1 if wrong or extra else 0


if __name__ == "__main__":
    sys.exit(main())
