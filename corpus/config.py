"""What to read and how to turn it into documents and tokens: configuration only, light to import.

Everything here is fingerprinted by the stages that use it. How the work is run (workers, batches) is not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storage.settings import STRICT, setting

MEBIBYTE = 1 << 20


Kind = Literal[
    "python-docs", "jsonl", "json", "parquet", "arrow", "csv", "text", "html", "warc", "mediawiki", "pdf", "epub"
]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One collection of text: where it lies, in which format, and which part of it is taken."""

    __pydantic_config__ = STRICT

    name: str = setting(
        "Name of the source: it stands beside every document and in part names.",
        pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
        max_length=64,
    )
    kind: Kind = setting("Format of the files. python-docs reads the documentation of a Python installation.")
    path: str = setting(
        "A folder, a file, a glob pattern, or any fsspec URL of these (s3://bucket/prefix). For python-docs: a folder "
        "of packages, empty for the running interpreter's standard library and installed packages.",
        "",
    )
    include: tuple[str, ...] = setting(
        "Only files that match one of these patterns (`*.jsonl.gz`, `2024/**/*.md`); empty takes the format's usual "
        "endings. A pattern without a slash is matched against the file's name.",
        (),
    )
    exclude: tuple[str, ...] = setting("No files that match one of these patterns.", ())
    text_field: str = setting(
        "Field of a record that holds the text; `a.b.c` goes into nested fields.", "text", min_length=1
    )
    url_field: str | None = setting("Field that holds the address of the document; missing values are null.", "url")
    date_field: str | None = setting("Field that holds the date of the document; missing values are null.", "date")
    meta_fields: tuple[str, ...] = setting("Further fields kept beside the text as canonical JSON.", ())
    records_field: str = setting(
        "json: the field (`a.b.c`) that holds the array of records; empty where the file is an array, or one record.",
        "",
    )
    delimiter: str = setting(
        "csv: the character between fields; empty for a tab in .tsv and .tab files and a comma elsewhere.",
        "",
        max_length=1,
    )
    header: bool = setting("csv: the first row names the columns; without one they are called 0, 1, 2 …", True)
    split_by: Literal["file", "line", "blank-line", "separator"] = setting(
        "text: what a record is: the whole file, every line that is not blank, what stands between blank lines, or "
        "what stands between matches of `separator`.",
        "file",
    )
    separator: str = setting("text, split_by separator: a regular expression, of Python's kind.", "")
    encoding: str = setting(
        "text, csv, html, warc: how characters are encoded: a name (`utf-8`, `cp1252`); `detect` looks at byte order "
        "mark, headers, meta elements and the bytes. Empty: `detect` for html and warc, UTF-8 or what a byte order "
        "mark says for the others.",
        "",
    )
    extractor: Literal["quality", "precise", "fast"] = setting(
        "html, warc: how the main content of a page is found: trafilatura (quality; precise leaves out more) or "
        "resiliparse (fast).",
        "quality",
    )
    page_seconds: float = setting(
        "html, warc, mediawiki, pdf, epub: CPU seconds the extraction of one page (or book) may take; those that need "
        "more are quarantined.",
        30.0,
        gt=0,
    )
    page_memory_bytes: int = setting(
        "html, warc, mediawiki, pdf, epub: memory the extraction of one page (or book) may take; those that need more "
        "are quarantined.",
        1024 * MEBIBYTE,
        ge=64 * MEBIBYTE,
    )
    digests: Literal["check", "ignore"] = setting(
        "warc: whether the digests that records state of themselves are checked; what does not fit is quarantined.",
        "check",
    )
    namespaces: tuple[int, ...] = setting("mediawiki: numbers of the namespaces that are read; 0 holds articles.", (0,))
    members: tuple[str, ...] = setting(
        "Inside zip and tar archives: only members that match one of these patterns; empty takes the format's usual "
        "endings.",
        (),
    )
    packages: tuple[str, ...] = setting(
        "python-docs: only these top-level packages (`stdlib` stands for the whole standard library); empty for all.",
        (),
    )
    exclude_packages: tuple[str, ...] = setting(
        "python-docs: not these top-level packages (`stdlib` stands for the whole standard library).", ()
    )
    adopt: bool = setting(
        "parquet: files that are document parts already (of another workspace, or exported by export-corpus; their "
        "`source` must be this source's name) are taken as they are: linked into the workspace where it lies on the "
        "same disk, else copied. They are checked, not normalised. Files that do not fit are read like any other.",
        False,
    )
    max_bytes: int | None = setting(
        "At most about this many bytes of input files: whole files are taken in the order of a hash of their path "
        "until their sizes reach it, so that one more file changes little. Empty for all.",
        None,
        ge=1,
    )
    limit: int | None = setting("At most this many records of each file, the first ones. Empty for all.", None, ge=1)
    fraction: float = setting(
        "Share of the records that is read, chosen by a hash of path and record number.", 1.0, gt=0, le=1
    )

    def __post_init__(self) -> None:
        if self.adopt and (self.kind != "parquet" or self.limit is not None or self.fraction < 1):
            raise ValueError(f"source {self.name!r}: adopt takes whole parquet files, without limit and fraction")
        if self.split_by == "separator" and not self.separator:
            raise ValueError(f"source {self.name!r}: split_by separator needs a separator, a regular expression")
        if self.kind == "python-docs":
            return
        if not self.path:
            raise ValueError(f"source {self.name!r}: a {self.kind} source needs a path")
        if self.packages or self.exclude_packages:
            raise ValueError(
                f"source {self.name!r}: packages are chosen in python-docs sources only, not in {self.kind}"
            )


@dataclass(frozen=True, kw_only=True)
class NormaliseConfig:
    """Repairs that change how a text is written down, never what it says. Each can be switched off."""

    __pydantic_config__ = STRICT

    fix_encoding: bool = setting(
        "Repair text that was decoded with the wrong encoding (ftfy, only where it looks so) and lone surrogates.", True
    )
    line_ends: bool = setting(
        "One kind of line end: CR, CR LF, NEL, LS, PS, form feed and vertical tab become LF.", True
    )
    control_characters: bool = setting("Remove control characters (tab and LF stay), DEL and byte order marks.", True)
    zero_width: bool = setting(
        "Remove characters that nobody sees: soft hyphens (at a line's end they become hyphens), zero width spaces "
        "(not between words of Thai, Lao, Tibetan, Burmese and Khmer), word joiners, invisible operators. Joiners and "
        "marks of direction stay.",
        True,
    )
    white_space: bool = setting(
        "An ordinary space for spaces of other widths and no-break spaces. Tabs and the ideographic space stay.", True
    )
    unicode_nfc: bool = setting("Unicode normal form C: one code sequence for one character.", True)
    trailing_white_space: bool = setting(
        "Remove spaces and tabs at line ends, and blank lines at the start and the end of the text.", True
    )
    blank_lines: bool = setting("At most two blank lines in a row.", True)


@dataclass(frozen=True, kw_only=True)
class RedactConfig:
    """Personal data that is replaced by placeholders before anything is written."""

    __pydantic_config__ = STRICT

    kinds: tuple[Literal["email", "ip", "phone", "credit-card", "iban"], ...] = setting("What is replaced.", ())


@dataclass(frozen=True, kw_only=True)
class Takedown:
    """A record that must not be read again. Written by `gristmill takedown`, which finds it by id, uri or source."""

    __pydantic_config__ = STRICT

    source: str = setting("Name of the source.")
    uri: str = setting("Path of the input file below the source, with `!/` and the member for archives.")
    record: int | None = setting("Number of the record in the file, from 0; empty for the whole file.", None, ge=0)
    id: str = setting("The document's id, 32 hex digits; empty for a whole file.", "")


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """The text to read: sources, how it is normalised, how large parts get."""

    __pydantic_config__ = STRICT

    sources: tuple[SourceConfig, ...] = setting("The collections of text to read.", min_length=1)
    normalise: NormaliseConfig = setting("Repairs of the text.", default_factory=NormaliseConfig)
    redact: RedactConfig = setting("Personal data that is not stored.", default_factory=RedactConfig)
    part_bytes: int = setting(
        "Text in one document part, in bytes (at most, longer single documents aside).", 64 * MEBIBYTE, ge=1024
    )
    max_record_bytes: int = setting(
        "Longest record that is read, in bytes as it stands in its file; longer ones are quarantined.",
        16 * MEBIBYTE,
        ge=64,
    )
    checksums: bool = setting(
        "Note the SHA-256 of every input file in the ledger. Files that are not read from end to end (Parquet, files "
        "in several units) are read once more for it.",
        True,
    )
    takedown: tuple[Takedown, ...] = setting("Records and files that are left out on request.", ())
    empty_sources: Literal["stop", "allow"] = setting(
        "Whether the run stops behind ingest (exit code 3) where not one record of a source became a document, as when "
        "its text_field is misspelt.",
        "stop",
    )


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The vocabulary: trained on the selected documents, or a given one."""

    __pydantic_config__ = STRICT

    kind: Literal["bpe", "unigram", "wordpiece", "file", "folder", "tiktoken", "sentencepiece"] = setting(
        "Train a byte-level BPE, a byte-level Unigram model or WordPiece; or take a tokenizer.json (file), "
        "a local Hugging Face folder, a tiktoken file or a SentencePiece model.",
        "bpe",
    )
    path: str = setting("Kinds that are given: the file or folder, a path or fsspec URL.", "")
    vocabulary_size: int = setting(
        "Kinds that are trained: tokens in the vocabulary, the 256 bytes and the special tokens included.",
        32_768,
        ge=257,
        le=1 << 24,
    )
    sample_bytes: int = setting(
        "Kinds that are trained: about this many bytes of text are trained on, chosen by document id.",
        256 * MEBIBYTE,
        ge=1024,
    )
    source_weights: dict[str, float] = setting(
        "How often documents of a source are in the sample, as against those of sources that are not named (1).",
        default_factory=dict,
    )
    pattern: Literal["gpt2", "cl100k", "qwen2", "o200k"] = setting(
        "bpe, unigram, tiktoken: how text is split before merging.", "gpt2"
    )
    lowercase: bool = setting("wordpiece: lower case, no accents.", False)
    end_of_text: str = setting(
        "The token that ends a document: one of the special tokens, or one of the given vocabulary's.", "<|endoftext|>"
    )
    special_tokens: tuple[str, ...] = setting(
        "Kinds that are trained, and tiktoken (whose files hold none; they come behind its tokens): tokens that never "
        "come out of text, only by their id.",
        ("<|endoftext|>",),
        min_length=1,
    )
    chat_template: str = setting(
        "A Jinja template that makes one text of the messages of a chat, as Hugging Face has them; empty: the given "
        "folder's, or none.",
        "",
    )

    def __post_init__(self) -> None:
        if self.given and not self.path:
            raise ValueError(f"path: a tokenizer of kind {self.kind!r} needs a path")
        if len(set(self.special_tokens)) != len(self.special_tokens):
            raise ValueError(f"special_tokens: one token is named twice in {self.special_tokens}")
        if bad := [name for name, weight in self.source_weights.items() if not 0 <= weight < float("inf")]:
            raise ValueError(f"source_weights.{bad[0]}: {self.source_weights[bad[0]]} is no weight; 0 or more is")
        if self.given and self.kind != "tiktoken":
            return
        if self.end_of_text not in self.special_tokens:
            raise ValueError(f"end_of_text: {self.end_of_text!r} is not one of special_tokens {self.special_tokens}")
        if not self.given and self.vocabulary_size < 256 + len(self.special_tokens):
            raise ValueError(
                f"vocabulary_size: {self.vocabulary_size} is too small for 256 bytes and "
                f"{len(self.special_tokens)} special tokens"
            )

    @property
    def given(self) -> bool:
        """Whether nothing is trained."""
        return self.kind in ("file", "folder", "tiktoken", "sentencepiece")


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Token shards: which files are written, how large, and whether documents are closed by the end token."""

    __pydantic_config__ = STRICT

    arrow: bool = setting("Arrow IPC shards, memory-mapped for training.", True)
    parquet: bool = setting("Parquet shards, to share and to query.", True)
    megatron: bool = setting("Megatron's .bin and .idx beside them, for other trainers.", False)
    npy: bool = setting("Plain .npy files of all tokens in a row beside them, for other trainers.", False)
    shard_tokens: int = setting("Tokens in one shard, about.", 64 * MEBIBYTE, ge=1024)
    end_token: bool = setting("Write the end token after every document.", True)
    encoder: Literal["compiled", "library"] = setting(
        "compiled: by compiled loops where they are proven to give the same ids as the library tokenizers, else by "
        "the library; library: always by the library.",
        "compiled",
    )

    def __post_init__(self) -> None:
        if not (self.arrow or self.parquet):
            raise ValueError("arrow, parquet: at least one of the two must be written")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """The cleaned, selected documents as files for others."""

    __pydantic_config__ = STRICT

    parquet: bool = setting("Parquet files.", True)
    jsonl: bool = setting("JSON lines, zstd-compressed.", True)
