"""What the Transformer promises: Hugging Face's names and logits, documents kept apart, the initial scale."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attention import attend, attention_layout, boundaries_of
from model.config import ModelConfig
from model.transformer import Transformer, restarting_positions

torch.set_num_threads(1)
SMALL = {"layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "max_positions": 64}


def make(seed: int = 0, **changes: object) -> Transformer:
    model = Transformer(ModelConfig(**{**SMALL, "initial_std": 0.2, **changes}), 50)  # type: ignore[arg-type]
    model.initialise(seed)
    return model


def draw_tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_hugging_face_llama_with_the_same_tensors(tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    model = make(tie_embeddings=tied, rope_theta=500.0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=model.config.hidden_width, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5, tie_word_embeddings=tied,
            max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        )
    ).eval()  # fmt: skip
    missing, unexpected = theirs.load_state_dict(model.state_dict(), strict=False)
    assert unexpected == []
    assert set(missing) <= {"lm_head.weight"} if tied else missing == []
    tokens = draw_tokens(2, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-5)


def test_qk_norm_has_the_names_and_logits_of_qwen3() -> None:
    transformers = pytest.importorskip("transformers")
    model = make(qk_norm=True)
    for name, parameter in model.named_parameters():
        if "_norm.weight" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.3, generator=torch.Generator().manual_seed(1))
    theirs = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(
            vocab_size=50, hidden_size=32, intermediate_size=model.config.hidden_width, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5, tie_word_embeddings=True,
            max_position_embeddings=64, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        )
    ).eval()  # fmt: skip
    _, unexpected = theirs.load_state_dict(model.state_dict(), strict=False)
    assert unexpected == []
    tokens = draw_tokens(1, 30)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-5)


def test_a_causal_model_never_sees_the_future_and_a_bidirectional_one_does() -> None:
    tokens = draw_tokens(1, 20)
    changed = tokens.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 50
    for causal in (True, False):
        model = make(causal=causal)
        same = torch.equal(model(tokens)[:, :12], model(changed)[:, :12])
        assert same == causal


@pytest.mark.parametrize("causal", [True, False])
def test_a_document_in_a_packed_row_is_computed_as_if_it_were_alone(causal: bool) -> None:
    model = make(causal=causal, qk_norm=True)
    tokens = draw_tokens(2, 30)
    ids = torch.tensor([[0] * 11 + [1] * 19, [4] * 25 + [9] * 5])
    packed = model(tokens, boundaries=boundaries_of(ids))
    for row, start, stop in ((0, 0, 11), (0, 11, 30), (1, 0, 25), (1, 25, 30)):
        alone = model(tokens[row : row + 1, start:stop])[0]
        torch.testing.assert_close(packed[row, start:stop], alone, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_attention_is_the_textbook_formula_under_any_layout(data: st.DataObject) -> None:
    causal, kv_heads = data.draw(st.booleans()), data.draw(st.sampled_from([1, 2, 4]))
    time = data.draw(st.integers(1, 9))
    ids = torch.tensor([sorted(data.draw(st.lists(st.integers(0, 3), min_size=time, max_size=time))) for _ in "ab"])
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    query = torch.randn(2, time, 4, 8, generator=generator)
    key, value = (torch.randn(2, time, kv_heads, 8, generator=generator) for _ in "kv")
    mixed = attend(query, key, value, attention_layout(boundaries_of(ids), 2, causal=causal, dtype=query.dtype))
    for batch in range(2):
        for head in range(4):
            source = head // (4 // kv_heads)
            scores = query[batch, :, head] @ key[batch, :, source].T / math.sqrt(8)
            for i in range(time):
                for j in range(time):
                    if ids[batch, i] != ids[batch, j] or (causal and j > i):
                        scores[i, j] = -math.inf
            expected = scores.softmax(-1) @ value[batch, :, source]
            torch.testing.assert_close(mixed[batch, :, head], expected, rtol=1e-4, atol=1e-5)


@given(st.lists(st.lists(st.integers(0, 2), min_size=7, max_size=7), min_size=1, max_size=4))
def test_positions_restart_with_every_document(rows: list[list[int]]) -> None:
    ids = torch.tensor(rows)
    expected = []
    for row in rows:
        count = []
        for i, document in enumerate(row):
            count.append(count[-1] + 1 if i and row[i - 1] == document else 0)
        expected.append(count)
    assert restarting_positions(ids, boundaries_of(ids)).tolist() == expected


def test_initial_weights_have_the_documented_scale_and_depend_on_the_seed_only() -> None:
    model = Transformer(ModelConfig(layers=8, width=128, heads=4, kv_heads=4, tie_embeddings=False), 1000)
    model.initialise(7)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == 1).all(), name
            continue
        residual = name.endswith(("o_proj.weight", "down_proj.weight"))
        expected = 0.02 / math.sqrt(16) if residual else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
    again = Transformer(model.config, 1000)
    again.initialise(7)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_the_feed_forward_width_follows_the_eight_thirds_rule_unless_given() -> None:
    assert ModelConfig(width=4096, heads=32).hidden_width == 10_944  # 10,922.67 up to a multiple of 64
    assert ModelConfig(width=96, heads=4).hidden_width == 256
    assert ModelConfig(width=256, ffn_width=100).hidden_width == 100


def test_shapes_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"model\.width = 30 must be a multiple of model\.heads = 4"):
        ModelConfig(width=30, heads=4)
    with pytest.raises(ValueError, match=r"model\.kv_heads = 3 must divide"):
        ModelConfig(kv_heads=3)
    with pytest.raises(ValueError, match=r"65 tokens is longer than model\.max_positions = 64"):
        make()(draw_tokens(1, 65))
