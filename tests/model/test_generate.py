"""Generation: the cache changes no logit, one seed one text, and no length of prompt is too long."""

from __future__ import annotations

import pytest
import torch

from model.finetune_config import GenerateConfig
from model.generate import Decoder, end_token_id, generate, generate_tokens, load_tokenizer, sample_token
from tests.model.tiny import END, tiny_model, tiny_tokenizer

torch.set_num_threads(1)


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"tie_embeddings": False, "kv_heads": 4}])
def test_reading_token_by_token_gives_the_logits_of_reading_at_once(changes: dict[str, object]) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, **changes)
    tokens = [int(i) for i in torch.randint(model.vocabulary_size, (20,), generator=torch.Generator().manual_seed(0))]
    with torch.no_grad():
        expected = model(torch.tensor([tokens]))[0]
    decoder = Decoder(model)
    torch.testing.assert_close(decoder.read(tokens[:7]), expected[6], rtol=1e-5, atol=1e-5)
    for i in range(7, 20):
        torch.testing.assert_close(decoder.read(tokens[i : i + 1]), expected[i], rtol=1e-5, atol=1e-5)


def test_greedy_text_is_the_argmax_of_the_whole_model_at_every_step() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    config = GenerateConfig(max_tokens=12, temperature=0.0)
    end = end_token_id(tokenizer)
    written = generate_tokens(model, [end, 5, 6], config, end=-1, vocabulary_size=model.vocabulary_size)
    sequence = [end, 5, 6]
    for token in written:
        with torch.no_grad():
            assert token == int(model(torch.tensor([sequence]))[0, -1].argmax())
        sequence.append(token)
    assert len(written) == 12


def test_one_seed_one_text_and_another_seed_another() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    texts = [
        generate(model, tokenizer, "The quick", GenerateConfig(max_tokens=40, temperature=1.0, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize("prompt_length", [1, 31, 32, 33, 100])
def test_prompts_and_texts_longer_than_the_positions_go_on(prompt_length: int) -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    config = GenerateConfig(max_tokens=50, temperature=1.0, top_k=0)
    written = generate_tokens(model, [7] * prompt_length, config, end=-1, vocabulary_size=model.vocabulary_size)
    assert len(written) == 50


def test_generation_stops_at_the_end_token_and_does_not_write_it() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    config = GenerateConfig(max_tokens=20, temperature=0.0)
    free = generate_tokens(model, [3], config, end=-1, vocabulary_size=model.vocabulary_size)
    stop = free[4]
    stopped = generate_tokens(model, [3], config, end=stop, vocabulary_size=model.vocabulary_size)
    assert stopped == free[: free.index(stop)]


def test_sampling_follows_the_softmax_and_keeps_to_the_top_k() -> None:
    logits = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    generator = torch.Generator().manual_seed(0)
    draws = [sample_token(logits, GenerateConfig(temperature=1.0, top_k=0), generator) for _ in range(4000)]
    for token, share in enumerate([0.1, 0.2, 0.3, 0.4]):
        assert draws.count(token) / 4000 == pytest.approx(share, abs=0.03)
    draws = [sample_token(logits, GenerateConfig(temperature=1.0, top_k=2), generator) for _ in range(1000)]
    assert set(draws) == {2, 3}
    assert sample_token(torch.tensor([1.0, 2.0, 2.0]), GenerateConfig(temperature=0.0), generator) == 1


def test_rows_that_only_pad_the_embedding_are_never_written() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    config = GenerateConfig(max_tokens=60, temperature=5.0, top_k=0)
    assert max(generate_tokens(model, [3], config, end=-1, vocabulary_size=50)) < 50


def test_a_model_that_sees_both_sides_does_not_generate() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match="only a causal model"):
        generate(tiny_model(tokenizer, causal=False), tokenizer, "", GenerateConfig())


def test_special_tokens_written_out_in_a_text_are_text(tmp_path) -> None:  # type: ignore[no-untyped-def]
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    ids = tokenizer.encode(f"a{END}b", add_special_tokens=False).ids
    assert end_token_id(tokenizer) not in ids
    assert tokenizer.decode(ids) == f"a{END}b"
    with pytest.raises(ValueError, match="no end token"):
        end_token_id(tokenizer, "<end>")
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        load_tokenizer(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken.json is not a tokenizer\.json"):
        load_tokenizer(tmp_path / "broken.json")
