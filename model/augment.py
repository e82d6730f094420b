"""Training sequences changed while they are shown, as a pure function of (seed, position, tokens).

Nothing is drawn from a generator and nothing is remembered: every draw is a hash of the seed, the position of the
sequence in the training and the place in it. So the batches are the same for any number of ranks, any micro-batch and
after any resume, and a sequence that is shown again, at another position, is changed otherwise. Two kinds:

*The text is changed*, and the targets with it: the model learns to write the changed text.

- synonyms: a word of a user's table becomes one of its synonyms (EDA: Wei and Zou 2019, section 2).
- sentence shuffling: whole sentences of a document change places (a noise of BART: Lewis et al. 2020, section 2.2).
- token dropout: tokens are left out (random deletion of EDA).

A row that grew is cut at its length, one that shrank is filled with padding, a document of its own without targets.

*What is read is changed*, and the targets stay: the model learns to write the text as it is from a damaged beginning.

- span masking: spans of tokens are hidden behind one token each (SpanBERT: Joshi et al. 2020, section 3.1; with a mean
  length of 1, word dropout as Bowman et al. 2016, section 3.1.3, have it).
- token noise: a random token in place of the true one (Xie et al. 2017, section 3.2, with a uniform distribution).

Special tokens (the end of documents among them), padding, and tokens that are no targets (context that was read before)
are never changed and never moved, and no document takes anything from another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from model.augment_config import AugmentConfig
from model.augment_text import Flags, Phrase, encode_synonyms, read_synonyms, read_vocabulary
from model.data import Batch
from model.generate import load_tokenizer, vocabulary_rows
from model.packing import IGNORED
from model.permutation import hashed, keys_of
from model.shards import Integers

Draws = npt.NDArray[np.float64]


def make_augmenter(
    config: AugmentConfig, tokenizer_json: str, vocabulary_size: int, end_id: int | None
) -> Augmenter | None:
    """The changes that a job asks for, None if there are none.

    Raises
    ------
    ValueError
        If the tokeniser or the table of synonyms cannot be read, or they do not fit the configuration.
    FileNotFoundError
        If there is no tokeniser.
    """
    if not config.is_on:
        return None
    synonyms = read_synonyms(config.synonyms) if config.synonym_rate else {}
    tokenizer = load_tokenizer(tokenizer_json)
    return Augmenter(config, tokenizer, vocabulary_size, padding=end_id or 0, synonyms=synonyms)


class _Text(NamedTuple):
    """A row as runs of text: token ids; which may be changed; which are targets; which begin a document."""

    ids: Integers
    free: Flags
    valid: Flags
    first: Flags

    def take(self, places: Integers | Flags | slice) -> _Text:
        return _Text(self.ids[places], self.free[places], self.valid[places], self.first[places])


class Augmenter:
    """The changes that a configuration asks for, for one vocabulary.

    Parameters
    ----------
    config
        What is changed, and how much.
    tokenizer
        Of the run.
    vocabulary_size
        Rows of the embedding.
    padding
        The token that fills rows that shrank: the end token, or 0.
    synonyms
        The table that `config.synonyms` names (`model.augment_text.parse_synonyms`).

    Raises
    ------
    ValueError
        If `mask_token` is no special token of the vocabulary, or the vocabulary is larger than the embedding.
    """

    def __init__(
        self,
        config: AugmentConfig,
        tokenizer: Tokenizer,
        vocabulary_size: int,
        *,
        padding: int = 0,
        synonyms: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if vocabulary_rows(tokenizer) > vocabulary_size:
            raise ValueError(
                f"the tokeniser has ids up to {vocabulary_rows(tokenizer) - 1}, the model {vocabulary_size} rows"
            )
        self.config, self.padding = config, padding
        self.vocabulary = read_vocabulary(tokenizer, vocabulary_size)
        self.text_ids = np.flatnonzero(self.vocabulary.is_text)
        self.mask_id = -1
        if config.span_masking:
            found = tokenizer.token_to_id(config.mask_token)
            if found is None or self.vocabulary.is_text[found]:
                raise ValueError(
                    f"augment.mask_token = {config.mask_token!r} is no special token of the vocabulary; give it one by "
                    "tokenizer.special_tokens"
                )
            self.mask_id = int(found)
        self.phrases: dict[int, list[Phrase]] = {}
        if config.synonym_rate:
            table = {word: tuple(entries) for word, entries in (synonyms or {}).items()}
            self.phrases = encode_synonyms(table, tokenizer, self.vocabulary)
        self.begins_phrase = np.zeros(vocabulary_size, np.bool_)
        self.begins_phrase[list(self.phrases)] = True
        names = ("synonym", "which", "shuffled", "sentence", "dropped", "span", "length", "noise", "token")
        self._keys = {name: keys_of(f"gristmill augment {config.seed} {name}", 2) for name in names}

    # ------------------------------------------------------------------------------------------------ batches

    def batch(self, batch: Batch, positions: Sequence[int]) -> Batch:
        """A batch changed; `positions`: where its sequences stand in the training, (sequences,)."""
        if not self.config.is_on:
            return batch
        tokens, targets = batch.tokens.numpy().copy(), batch.targets.numpy()
        boundaries = None if batch.boundaries is None else batch.boundaries.numpy()
        rows, length = tokens.shape
        starts = np.zeros(tokens.shape, np.bool_)
        starts[:, 0] = True
        if boundaries is not None:
            starts.reshape(-1)[boundaries[:-1]] = True
        places = np.asarray(positions, np.int64)
        if self.config.rewrites:
            targets = targets.copy()
            for row in range(rows):
                found = self._rewritten(self._text(tokens[row], targets[row], starts[row]), int(places[row]))
                tokens[row], targets[row], starts[row] = self._laid_out(found, length)
        self._damage(tokens, targets != IGNORED, starts, places)
        if boundaries is not None:
            boundaries = np.append(np.flatnonzero(starts), starts.size).astype(np.int32)
        return Batch(
            torch.from_numpy(tokens),
            torch.from_numpy(targets),
            None if boundaries is None else torch.from_numpy(boundaries),
        )

    def sequence(self, tokens: Sequence[int], position: int, longest: int) -> list[int]:
        """A document without targets, as fine-tuning reads it: its first token stays, all others are text.

        It is cut at `longest` tokens; `position` is one that no other showing of a document has.
        """
        if not self.config.is_on or not tokens:
            return list(tokens)
        ids = np.asarray(tokens, np.int64)
        inside = np.arange(len(ids)) > 0
        text = _Text(ids, inside & self.vocabulary.is_text[ids], inside, ~inside)
        ids = self._rewritten(text, position).ids[:longest]
        rows, first = ids[None].copy(), np.zeros((1, len(ids)), np.bool_)
        first[0, 0] = True
        self._damage(rows[:, 1:], np.ones((1, len(ids) - 1), np.bool_), first[:, 1:], np.array([position]))
        found: list[int] = rows[0].tolist()
        return found

    def _text(self, tokens: Integers, targets: Integers, starts: Flags) -> _Text:
        """The documents of a row, each its first token read and then its targets; padding is left out."""
        begins = np.append(np.flatnonzero(starts), len(tokens))
        if len(begins) > 2 and (targets[begins[-2] :] == IGNORED).all():
            begins = begins[:-1]
        ids, valid, first = [], [], []
        for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
            # What is no target is known from what is read behind it, but for the last, which nobody reads.
            ids.append(np.concatenate((tokens[begin:end], targets[end - 1 : end])))
            valid.append(np.concatenate(([False], targets[begin:end] != IGNORED)))
            first.append(np.arange(end - begin + 1) == 0)
        all_ids, all_valid = np.concatenate(ids), np.concatenate(valid)
        free = all_valid & self.vocabulary.is_text[np.where(all_valid, all_ids, 0)]
        return _Text(all_ids, free, all_valid, np.concatenate(first))

    def _laid_out(self, text: _Text, length: int) -> tuple[Integers, Integers, Flags]:
        """Tokens, targets and beginnings of a row of `length`; what is too long is cut off, what is missing padded."""
        last = np.append(text.first[1:], True)
        read = text.ids[~last][:length]
        wanted = np.where(text.valid, text.ids, IGNORED)[~text.first][:length]
        tokens = np.full(length, self.padding, np.int64)
        targets = np.full(length, IGNORED, np.int64)
        starts = np.zeros(length, np.bool_)
        tokens[: len(read)], targets[: len(read)] = read, wanted
        starts[: len(read)] = text.first[~last][:length]
        if len(read) < length:
            starts[len(read)] = True
        return tokens, targets, starts

    # --------------------------------------------------------------------------------------- the text is changed

    def _rewritten(self, text: _Text, position: int) -> _Text:
        if self.config.synonym_rate:
            text = self._with_synonyms(text, position)
        if self.config.sentence_shuffle:
            text = text.take(self._shuffled_sentences(text, position))
        if self.config.token_dropout:
            dropped = self._draws("dropped", position, len(text.ids)) < self.config.token_dropout
            text = text.take(~(text.free & dropped))
        return text

    def _with_synonyms(self, text: _Text, position: int) -> _Text:
        """Words replaced where they stand alone: what is before and behind does not make them longer.

        A word at the end of a row is left alone, for what follows is not known.
        """
        size, known = len(text.ids), self.vocabulary
        chance, which = (self._draws(name, position, size) for name in ("synonym", "which"))
        numbers = np.maximum(text.ids, 0)  # the last of a document may be no token at all, where it is no target
        longer = known.goes_on[numbers]  # behind a word
        candidates = text.free & self.begins_phrase[numbers] & (chance < self.config.synonym_rate)
        candidates[1:] &= ~(longer[1:] & known.ends_in_word[numbers[:-1]])
        stops = (text.first | (text.free & longer)).tolist()  # no word may end before these
        ids, free = text.ids.tolist(), text.free.tolist()
        made: list[int] = []
        origin: list[int] = []  # where tokens come from, -1: they are new
        done = 0
        for place in np.flatnonzero(candidates).tolist():
            if place < done:
                continue
            for phrase in self.phrases[ids[place]]:
                end = place + len(phrase.tokens)
                if end >= size or stops[end] or tuple(ids[place:end]) != phrase.tokens or not all(free[place:end]):
                    continue
                chosen = phrase.synonyms[int(which[place] * len(phrase.synonyms))]
                made += [*ids[done:place], *chosen]
                origin += [*range(done, place), *[-1] * len(chosen)]
                done = end
                break
        kept = np.array([*origin, *range(done, size)], np.int64)
        new = kept < 0
        return _Text(np.array([*made, *ids[done:]], np.int64), text.free[kept] | new, text.valid[kept] | new,
                     text.first[kept] & ~new)  # fmt: skip

    def _shuffled_sentences(self, text: _Text, position: int) -> Integers:
        """The order of a row's tokens once sentences inside documents have changed places.

        The first sentence of a document stays where it is, and so does what is behind its last end of a sentence: both
        may be parts of longer ones, and the first has no white space before it.
        """
        size, known = len(text.ids), self.vocabulary
        order = np.arange(size)
        ids = np.where(text.free, text.ids, 0)
        space = np.append(text.free[1:] & known.begins_with_space[ids[1:]], False)
        ends = text.free & (known.ends_any_sentence[ids] | (known.ends_sentence[ids] & space))
        behind_text = np.append(~text.free[1:] & ~text.first[1:], False)  # the end of a document, not of what is shown
        ends |= text.free & known.ends_sentence[ids] & behind_text
        edges = np.flatnonzero(np.diff(np.concatenate(([False], text.free, [False]))))
        chance, draws = (self._draws(name, position, size) for name in ("shuffled", "sentence"))
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            cuts = np.flatnonzero(ends[begin:end]) + begin + 1
            if len(cuts) < 3 or chance[begin] >= self.config.sentence_shuffle:
                continue
            sentences = np.split(order[cuts[0] : cuts[-1]], cuts[1:-1] - cuts[0])
            by_chance = np.argsort(draws[cuts[:-1]], kind="stable")
            order[cuts[0] : cuts[-1]] = np.concatenate([sentences[number] for number in by_chance])
        return order

    # ------------------------------------------------------------------------------------- what is read is changed

    def _damage(self, tokens: Integers, valid: Flags, starts: Flags, positions: Integers) -> None:
        """Mask spans and put noise into `tokens` (rows, T), in place."""
        rows, length = tokens.shape
        if not length:
            return
        # Padding is what stands behind the last target.
        used = np.where(valid.any(axis=1), length - valid[:, ::-1].argmax(axis=1), 0)
        free = self.vocabulary.is_text[tokens] & (np.arange(length) < used[:, None])
        if self.config.span_masking:
            for row in range(rows):
                hidden = self._hidden(free[row], starts[row], int(positions[row]))
                tokens[row, hidden], free[row, hidden] = self.mask_id, False
        if self.config.token_noise:
            wrong = free & (self._table("noise", positions, length) < self.config.token_noise)
            choice = (self._table("token", positions, length)[wrong] * len(self.text_ids)).astype(np.int64)
            tokens[wrong] = self.text_ids[choice]

    def _hidden(self, free: Flags, starts: Flags, position: int) -> Integers:
        """Places of a row that are masked: the wanted share of those that are free, in spans inside documents."""
        places = np.flatnonzero(free)
        left = round(self.config.span_masking * len(places))
        begins, lengths = (self._draws(name, position, len(free)) for name in ("span", "length"))
        with np.errstate(divide="ignore"):  # a mean of 1: all have length 1
            above_one = np.log1p(-lengths) / np.log1p(-1 / self.config.span_length)  # inversion of the geometric
        spans = np.minimum(1 + above_one.astype(np.int64), self.config.longest_span)
        hidden = np.zeros(len(free), np.bool_)
        for place in places[np.argsort(begins[places], kind="stable")].tolist():
            if not left:
                break
            for inside in range(place, min(place + int(spans[place]), len(free))):
                if not left or not free[inside] or (starts[inside] and inside > place):
                    break
                left -= not hidden[inside]
                hidden[inside] = True
        return np.flatnonzero(hidden)

    def _draws(self, name: str, position: int, count: int) -> Draws:
        """Numbers in [0, 1) for the places of a sequence, (count,)."""
        found: Draws = self._table(name, np.array([position]), count)[0]
        return found

    def _table(self, name: str, positions: Integers, count: int) -> Draws:
        """Numbers in [0, 1) for the places of sequences, (sequences, count)."""
        first, second = self._keys[name]
        rows = hashed(positions.astype(np.uint64), first)
        places = rows[:, None] + np.arange(count).astype(np.uint64)
        found: Draws = (hashed(places, second) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return found
