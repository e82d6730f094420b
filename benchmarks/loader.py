"""How fast does training get its batches? `model.data.Loader` beside torch's DataLoader, bare numpy and litdata.

32,000 sequences of 1,024 tokens out of 100,000 shuffled ones, in batches of 32 (int64 tensors), from memory-mapped
uint16 files in the page cache. A byte of text is a token here: values play no part.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.timing import Benchmark, Result, Work, main
from model.lanes import Lanes

LITDATA = importlib.util.find_spec("litdata") is not None
"""Not among the development packages: it is compared where somebody has installed it."""
LENGTH, BATCH, READ, STREAM, SHARDS = 1024, 32, 32_000, 100_000, 4
VOCABULARY, END = 256, 0
RESULT = Result({"batches": READ / BATCH, "M tokens": READ * LENGTH / 1e6})


def prepare(documents: pa.Table, folder: Path) -> None:
    """Token shards and one flat file of the same tokens: a byte is a token, so that nothing has to be trained."""
    import numpy as np

    from storage.arrow_files import write_ipc
    from storage.schemas import token_schema

    schema = token_schema(pa.uint16())
    size = -(-len(documents) // SHARDS)
    with (folder / "tokens.bin").open("wb") as flat:
        for number in range(SHARDS):
            some = documents.slice(number * size, size)
            texts = [text.encode() for text in some.column("text").to_pylist()]
            tokens = np.frombuffer(b"".join(text + b"\0" for text in texts), np.uint8).astype(np.uint16)
            offsets = np.cumsum([0, *(len(text) + 1 for text in texts)], dtype=np.int64)
            rows = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens), type=schema.field("tokens").type)
            write_ipc(folder / f"{number}.arrow", pa.table({"id": some.column("id"), "tokens": rows}), schema)
            tokens.tofile(flat)
    if LITDATA:
        from litdata import TokensLoader, optimize

        optimize(
            fn=partial(_tensors, str(folder / "tokens.bin")),
            inputs=list(range(SHARDS)),
            output_dir=str(folder / "litdata"),
            chunk_size=8192 * (LENGTH + 1),
            item_loader=TokensLoader(),
            num_workers=1,
        )


def _tensors(file: str, number: int) -> Any:
    """A share of the tokens for litdata, in the type that it gives out."""
    import numpy as np
    import torch

    yield torch.from_numpy(np.array_split(np.fromfile(file, np.uint16), SHARDS)[number].astype(np.int32))


def gristmill(
    folder: Path,
    document_mask: bool = False,
    end_once: bool = False,
    sequences: int = STREAM,
    lanes: Lanes | None = None,
) -> Work:
    """Shuffled batches with or without document ids; the shards are listed until there are so many sequences."""
    from model.data import Loader, TokenStream

    paths = sorted(folder.glob("*.arrow"))
    times = -(-sequences * LENGTH // _tokens(folder))
    loader = Loader(
        TokenStream(paths * times, VOCABULARY, END),
        LENGTH,
        shuffle_seed=1,
        document_mask=document_mask,
        end_once=end_once,
        lanes=lanes,
    )
    loader.batch(range(BATCH))

    def work() -> Result:
        for start in range(0, READ, BATCH):
            batch = loader.batch(range(start, start + BATCH))
            assert batch.targets.shape == (BATCH, LENGTH)
        return RESULT

    return work


class Sequences:
    """A map-style dataset of LENGTH + 1 tokens; the file is gone through until there are STREAM of them."""

    def __init__(self, file: Path) -> None:
        import numpy as np
        import torch

        self.tokens = np.memmap(file, np.uint16, mode="r")
        self.from_numpy: Any = torch.from_numpy

    def __len__(self) -> int:
        return STREAM

    def __getitem__(self, index: int) -> Any:
        begin = index % ((len(self.tokens) - 1) // LENGTH) * LENGTH
        return self.from_numpy(self.tokens[begin : begin + LENGTH + 1].astype("int64"))


def torch_loader(folder: Path, workers: int) -> Work:
    """`Sequences`, shuffled and batched by the DataLoader."""
    from torch.utils.data import DataLoader

    _tokens(folder)
    sequences: Any = Sequences(folder / "tokens.bin")
    batches = iter(DataLoader(sequences, batch_size=BATCH, shuffle=True, num_workers=workers))
    next(batches)

    def work() -> Result:
        for _ in range(READ // BATCH):
            batch = next(batches)
            inputs, targets = batch[:, :-1], batch[:, 1:]
            assert inputs.shape == targets.shape == (BATCH, LENGTH)
        return RESULT

    return work


def litdata(folder: Path) -> Work:
    """Shuffled sequences of its token chunks, on this disk; epochs follow each other."""
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    _tokens(folder)
    items = TokensLoader(block_size=LENGTH + 1)
    dataset = StreamingDataset(str(folder / "litdata"), item_loader=items, shuffle=True, drop_last=True)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    coming = batches()
    next(coming)

    def work() -> Result:
        for _ in range(READ // BATCH):
            batch = next(coming).long()
            inputs, targets = batch[:, :-1], batch[:, 1:]
            assert inputs.shape == targets.shape == (BATCH, LENGTH)
        return RESULT

    return work


def plain_numpy(folder: Path) -> Work:
    """Random sequences copied out of the memmap, a batch at a time: no epochs, no state, no checks."""
    import numpy as np
    import torch

    _tokens(folder)
    data = np.asarray(Sequences(folder / "tokens.bin").tokens)  # slices of a memmap are slower than of an array
    begins = np.random.default_rng(1).integers(0, len(data) - LENGTH, READ).tolist()

    def work() -> Result:
        for start in range(0, READ, BATCH):
            rows = np.stack([data[begin : begin + LENGTH + 1] for begin in begins[start : start + BATCH]])
            batch = torch.from_numpy(rows.astype(np.int64))
            inputs, targets = batch[:, :-1], batch[:, 1:]
            assert inputs.shape == targets.shape == (BATCH, LENGTH)
        return RESULT

    return work


def _tokens(folder: Path) -> int:
    """How many there are; reads all files once, into the page cache."""
    sizes = {file.name: len(file.read_bytes()) for file in folder.rglob("*") if file.is_file()}
    return sizes["tokens.bin"] // 2


def judge(folder: Path, outcomes: Mapping[str, Any]) -> Mapping[str, str]:
    """What each gives."""
    torch_note = "tokens and targets; an order is repeated by replaying it; tokens are not checked"
    return {
        "gristmill": "tokens and targets; any position by arithmetic; every token checked against the vocabulary",
        "gristmill, one pass of the shards": "as above with fewer sequences: below 65,536 they are shuffled by a table",
        "gristmill, lanes": "the order for object stores: 8 lanes, blocks of 64 sequences, windows of 4 blocks",
        "gristmill, document mask": "as the first, and where documents begin, told by their end tokens",
        "gristmill, document mask by offsets": "as before, told by the offsets of the shards; every end token checked",
        "numpy over the memmap": "tokens and targets of random places: no epochs, nothing to resume, nothing checked",
        "litdata, 0 workers": "tokens and targets; shuffled within and over chunks; tokens are not checked",
        "DataLoader, 0 workers": torch_note,
        "DataLoader, 2 workers": f"{torch_note}; wall is what training waits for, the CPU is spent beside it",
    }


if __name__ == "__main__":
    main(
        Benchmark(
            "imports, opening the files, reading them into the page cache, the first batch, starting torch's workers.",
            prepare,
            {
                "gristmill": gristmill,
                "gristmill, one pass of the shards": partial(gristmill, sequences=1),
                "gristmill, lanes": partial(gristmill, lanes=Lanes(8, 64, 4)),
                "gristmill, document mask": partial(gristmill, document_mask=True, end_once=True),
                "gristmill, document mask by offsets": partial(gristmill, document_mask=True),
                "numpy over the memmap": plain_numpy,
                **({"litdata, 0 workers": litdata} if LITDATA else {}),
                "DataLoader, 0 workers": partial(torch_loader, workers=0),
                "DataLoader, 2 workers": partial(torch_loader, workers=2),
            },
            judge,
            packages=("torch", "numpy", "pyarrow", *(["litdata"] if LITDATA else [])),
            environment={"OMP_NUM_THREADS": "1"},
        )
    )
