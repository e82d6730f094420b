"""`storage` needs pyarrow, fsspec and filelock, nothing else, and is there at once."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import storage
from tests.storage.processes import REPOSITORY

ALLOWED = ("storage", "pyarrow", "fsspec", "filelock", "numpy")  # numpy: pyarrow itself brings it where it is there
IMPORT = """
import sys, time, json
modules, allowed = json.loads(sys.argv[1]), set(json.loads(sys.argv[2]))

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{name} is not one of the libraries storage may need", name=name)
        return None

sys.meta_path.insert(0, Blocker())
started = time.process_time()
for module in modules:
    __import__(f"storage.{module}")
seconds = time.process_time() - started

import tempfile
import pyarrow as pa
from storage.filesystem import Store
from storage.leases import Lease
from storage.outputs import PartWriter
from storage import runs
for url in (tempfile.mkdtemp(), "memory://imports"):
    store = Store(url)
    with Lease(store, "stage-1"):
        runs.start(store, "demo", {}, {}, {})
        writer = PartWriter(store, "outputs/a/b", "k")
        schema = pa.schema([pa.field("n", pa.int64())])
        writer.parquet("x/y", pa.table({"n": [1]}), schema)
        writer.ipc("x/z", pa.table({"n": [1]}), schema)
        writer.finish()
third = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
print(json.dumps({"seconds": seconds, "third": sorted(name for name in third if not name.startswith("_"))}))
"""


def run(allowed: tuple[str, ...]) -> dict[str, object]:
    """Import every module of `storage` in a process that has nothing else, and work with them."""
    modules = [module.name for module in pkgutil.iter_modules(storage.__path__)]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, json.dumps(modules), json.dumps(allowed)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_storage_needs_only_its_few_libraries_and_imports_fast() -> None:
    found = run(ALLOWED)
    # Processor time, so that a busy machine does not fail it.
    assert isinstance(found["seconds"], float)
    assert found["seconds"] < 0.6
    assert isinstance(found["third"], list)
    assert set(found["third"]) <= {*ALLOWED, "__main__", "cython_runtime"}


def test_storage_works_without_numpy_and_without_filelock() -> None:
    run(("storage", "pyarrow", "fsspec"))
