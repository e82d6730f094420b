"""Tokenisers that others made, as `tokenizers` has them: tokenizer.json, Hugging Face folders, tiktoken, SentencePiece.

Each conversion gives the ids of the library it came from; what cannot be converted exactly is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

from corpus.config import TokenizerConfig
from corpus.tokenizer import TokenizerError, as_plain_text, byte_level, parse_tokenizer

FOLDER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
"""What of a folder is read, the earlier before the later."""

_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6  # sentencepiece_model.proto, SentencePiece.Type
_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType


@dataclass(frozen=True)
class Imported:
    """A tokeniser and the chat template that came with it, "" if none did."""

    tokenizer: Tokenizer
    chat_template: str = ""


def import_tokenizer(config: TokenizerConfig, files: Mapping[str, bytes]) -> Imported:
    """The tokeniser of given files.

    Parameters
    ----------
    config
        Of a kind that is given.
    files
        By name: those of `FOLDER_FILES` that there are for kind "folder", else one of any name.

    Raises
    ------
    TokenizerError
        If they are no tokeniser of that kind, or none that can be converted exactly.
    """
    if config.kind == "folder":
        return _folder(config.path, files)
    (data,) = files.values()
    if config.kind == "tiktoken":
        return Imported(from_tiktoken(data, config.path, config.pattern, config.special_tokens))
    if config.kind == "sentencepiece":
        return Imported(from_sentencepiece(data, config.path))
    return Imported(parse_tokenizer(data, config.path))


def _folder(path: str, files: Mapping[str, bytes]) -> Imported:
    settings: dict[str, Any] = {}
    if "tokenizer_config.json" in files:
        try:
            settings = json.loads(files["tokenizer_config.json"])
        except ValueError as error:
            raise TokenizerError(f"{path}/tokenizer_config.json is not JSON: {error}") from error
    template = settings.get("chat_template") or ""
    if isinstance(template, list):  # several by name
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default", "")
    if "chat_template.jinja" in files:
        template = files["chat_template.jinja"].decode()
    if "tokenizer.json" in files:
        tokenizer = parse_tokenizer(files["tokenizer.json"], f"{path}/tokenizer.json")
    elif "tokenizer.model" in files:
        tokenizer = from_sentencepiece(files["tokenizer.model"], f"{path}/tokenizer.model")
    elif "vocab.json" in files and "merges.txt" in files:
        tokenizer = _vocabulary_and_merges(files, path)
    else:
        raise TokenizerError(
            f"{path} holds no tokenizer.json, no tokenizer.model, and not both of vocab.json and merges.txt; "
            f"there are: {', '.join(sorted(files)) or 'none of the files of a tokeniser'}"
        )
    return Imported(tokenizer, template)


def _vocabulary_and_merges(files: Mapping[str, bytes], path: str) -> Tokenizer:
    """A byte-level BPE as GPT-2 was published, with GPT-2's way of splitting."""
    lines = files["merges.txt"].decode().splitlines()
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#version"):
            continue
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise TokenizerError(f"{path}/merges.txt, line {number}: not two tokens: {line[:80]!r}")
        merges.append((left, right))
    try:
        tokenizer = Tokenizer(models.BPE(json.loads(files["vocab.json"]), merges))
    except Exception as error:  # the library's errors have no class of their own
        raise TokenizerError(f"{path}/vocab.json and merges.txt are no BPE: {error}") from error
    tokenizer.pre_tokenizer = byte_level("gpt2")
    tokenizer.decoder = decoders.ByteLevel()
    return _with_special(tokenizer, [token for token in ("<|endoftext|>",) if tokenizer.token_to_id(token) is not None])


def _with_special(tokenizer: Tokenizer, tokens: list[str] | tuple[str, ...]) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return as_plain_text(tokenizer)


def from_tiktoken(data: bytes, name: str, pattern: str, special_tokens: tuple[str, ...]) -> Tokenizer:
    """The tokeniser of a tiktoken file: lines of a token in base64 and its rank.

    tiktoken joins the two neighbours whose bytes together have the lowest rank, in whichever way they are cut: every
    cut of a token into two others is a merge here. A piece that is a token is never merged.
    """
    from corpus.encoding.encoder import byte_alphabet

    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(f"{name}, line {number}: not a token in base64 and its rank: {line[:80]!r}") from error
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise TokenizerError(f"{name}: {len(missing)} of the 256 bytes are no tokens, {missing[0]:#04x} for one")
    if len(set(ranks.values())) != len(ranks):
        raise TokenizerError(f"{name}: two tokens have the same rank")
    alphabet = byte_alphabet()

    def spelled(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
        cuts = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        merges += sorted(cuts, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
    vocabulary = {spelled(token): rank for token, rank in ranks.items()}
    pairs = [(spelled(left), spelled(right)) for left, right in merges]
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=True))
    tokenizer.pre_tokenizer = byte_level(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_special(tokenizer, special_tokens)


def from_sentencepiece(data: bytes, name: str) -> Tokenizer:
    """The tokeniser of a SentencePiece model, Unigram or BPE.

    Needs the optional packages of `gristmill[sentencepiece]`. Two things differ. Of Unigram models scores are added up
    in 32 bits there, in 64 here: where two ways of cutting a text have the same score to 32 bits, the other may be
    chosen (3 of 838 texts with one of four models, none with the others). A text of nothing but characters that
    normalising removes has no tokens here and may have the token of a space there.
    """
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise TokenizerError(
            f"{name}: SentencePiece models need more packages ({error}): pip install 'gristmill[sentencepiece]'"
        ) from error
    model: Any = getattr(sentencepiece_model_pb2, "ModelProto")()  # noqa: B009 - made when it is imported
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise TokenizerError(f"{name} is not a SentencePiece model: {error}") from error
    if not model.pieces:
        raise TokenizerError(f"{name} is not a SentencePiece model: it has no pieces")
    if model.trainer_spec.treat_whitespace_as_suffix or not model.normalizer_spec.escape_whitespaces:
        raise TokenizerError(f"{name}: spaces behind words, or not written as ▁, cannot be converted exactly")
    user = [piece.piece for piece in model.pieces if piece.type == _USER_DEFINED]
    if user and (model.normalizer_spec.add_dummy_prefix or model.normalizer_spec.remove_extra_whitespaces):
        raise TokenizerError(
            f"{name}: user-defined symbols ({user[0]!r}) in a model that puts a space before texts or takes spaces "
            "away cannot be converted exactly"
        )
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    unknown = next((piece for piece in model.pieces if piece.type == _UNKNOWN), None)
    fallback = any(piece.type == _BYTE for piece in model.pieces)
    if model.trainer_spec.model_type == _UNIGRAM:
        number = next((number for number, piece in enumerate(model.pieces) if piece.type == _UNKNOWN), None)
        made: Any = models.Unigram(pieces, number, fallback)
    elif model.trainer_spec.model_type == _BPE:
        made = models.BPE(
            {piece: number for number, (piece, _) in enumerate(pieces)},
            _merges_by_score(model.pieces),
            unk_token=unknown.piece if unknown else None,
            fuse_unk=True,
            byte_fallback=fallback,
        )
    else:
        raise TokenizerError(f"{name}: SentencePiece models of words or characters cannot be converted exactly")
    tokenizer = Tokenizer(made)
    tokenizer.normalizer = _sentencepiece_normaliser(model.normalizer_spec)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in user])
    control = [piece.piece for piece in model.pieces if piece.type in (_CONTROL, _UNKNOWN)]
    return _with_special(tokenizer, control)


def _sentencepiece_normaliser(spec: Any) -> Any:
    steps: list[Any] = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])


def _merges_by_score(pieces: Any) -> list[tuple[str, str]]:
    """Every cut of a piece into two others, the highest score first: SentencePiece joins what makes the best piece."""
    numbers = {piece.piece: number for number, piece in enumerate(pieces)}
    merges = []
    for piece in pieces:
        if piece.type in (_UNKNOWN, _CONTROL, _BYTE, _USER_DEFINED):
            continue
        text = piece.piece
        cuts = [(text[:at], text[at:]) for at in range(1, len(text))]
        cuts = [(left, right) for left, right in cuts if left in numbers and right in numbers]
        cuts.sort(key=lambda cut: (numbers[cut[0]], numbers[cut[1]]))
        merges += [(piece.score, left, right) for left, right in cuts]
    merges.sort(key=lambda merge: -merge[0])
    return [(left, right) for _, left, right in merges]


def check_template(template: str, name: str) -> None:
    """Raise `TokenizerError` if a chat template is no Jinja template."""
    from jinja2 import Environment, TemplateSyntaxError

    # transformers' own tag, which marks what an assistant says.
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)
    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain)
    except TemplateSyntaxError as error:
        raise TokenizerError(f"{name}, line {error.lineno}: not a Jinja template: {error.message}") from error
