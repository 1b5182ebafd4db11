"""Long prompts: chunks of tokens, where they are cut, and what is left out; short ones as ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.checkpoint.tokenizers import write_tokenizers
from faceclip_serving.contract.variants.table import VARIANTS
from faceclip_serving.models.notation import as_it_is, read_words
from faceclip_serving.models.prompts import encode_prompt, encode_words, load_tokenizer

SMALL = [VARIANTS[name] for name in ("tiny-sdxl", "nano", "tiny-flux")]
NANO = VARIANTS["nano"]
MOST = 3


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    made = {}
    for variant in SMALL:
        folder = tmp_path_factory.mktemp(variant.name)
        write_tokenizers(variant, None, folder)
        made |= {(variant.name, tokens): load_tokenizer(folder / tokens.tokenizer) for tokens in variant.tokens}
    return made


def texts(tokenizers, prompt, prefixed=False, most=MOST):
    """The words of each chunk of a prompt for nano, and what was left out."""
    (tokens,) = NANO.tokens
    tokenizer = tokenizers["nano", tokens]
    encoded = encode_words(tokenizer, tokens, read_words("prompt", prompt, True, True), prefixed, most)
    return [
        tokenizer.decode(chunk.ids[1 : chunk.used + 1].tolist()).replace("</w>", " ").strip() for chunk in encoded.chunks
    ], (encoded.dropped)


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("prompt", ["", "a red hat", "a red hat, " * 12, "word " * 300])
def test_one_chunk_is_as_it_ever_was(tokenizers, prompt, prefixed):
    for (_, tokens), tokenizer in tokenizers.items():
        found = encode_prompt(tokenizer, tokens, prompt, prefixed)
        begin = [] if tokens.begin is None else [tokens.begin]
        ids = tokenizer.encode((tokens.face_prefix if prefixed else "") + prompt, add_special_tokens=False).ids
        kept = ids[: tokens.max_tokens - len(begin) - 1]
        row = [*begin, *kept, tokens.end]
        assert found.ids.tolist() == row + [tokens.padding] * (tokens.max_tokens - len(row))
        assert (found.used, bool(found.dropped)) == (len(kept), len(ids) > len(kept))
        if not found.dropped:
            assert len(encode_words(tokenizer, tokens, as_it_is(prompt), prefixed, MOST).chunks) == 1


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["a", "red", "hat", "hat,", "coat.", "BREAK", "\n", "beach!"]), max_size=260), st.booleans())
def test_chunks_hold_all_tokens_in_order_each_after_the_prefix(tokenizers, words, prefixed):
    (tokens,) = NANO.tokens
    tokenizer = tokenizers["nano", tokens]
    read = read_words("prompt", " ".join(words), True, True)
    encoded = encode_words(tokenizer, tokens, read, prefixed, MOST)
    prefix = tokenizer.encode(tokens.face_prefix, add_special_tokens=False).ids if prefixed else []
    assert 1 <= len(encoded.chunks) <= MOST
    together = []
    for chunk in encoded.chunks:
        row = chunk.ids.tolist()
        assert len(row) == tokens.max_tokens and row[0] == tokens.begin and row[1 : len(prefix) + 1] == prefix
        assert row[chunk.used + 1] == tokens.end and set(row[chunk.used + 2 :]) <= {tokens.padding}
        together += row[len(prefix) + 1 : chunk.used + 1]
    ids = tokenizer.encode(read.text, add_special_tokens=False).ids
    assert ids[: len(together)] == together
    rest = tokenizer.encode(encoded.dropped, add_special_tokens=False).ids
    assert together + rest == ids
    assert not rest or len(encoded.chunks) == MOST


def test_a_chunk_ends_with_a_sentence_else_a_phrase_else_a_word(tokenizers):
    few, many = "a red hat ", 16  # three tokens each, 54 fit
    for end, sign in (("a beach .", "."), ("a beach ,", ","), ("a beach", "")):
        chunks, dropped = texts(tokenizers, few * many + "a beach" + sign + " " + few * many)
        assert dropped == "" and len(chunks) == 2
        assert chunks[0].endswith(end) or not sign
    chunks, _ = texts(tokenizers, few * 5 + "a beach. " + few * 8 + "a coat, " + few * 6)
    assert chunks[0].endswith("a beach ."), "a sentence that ends early is before a phrase that fills the chunk"
    chunks, _ = texts(tokenizers, "1.5 " * 60, most=2)
    assert all(not chunk.startswith((".", "5")) for chunk in chunks), "no number is cut"


def test_break_begins_a_chunk_and_a_fourth_is_told_as_left_out(tokenizers):
    assert texts(tokenizers, "a BREAK red BREAK hat") == (["a", "red", "hat"], "")
    assert texts(tokenizers, "a BREAK red BREAK hat BREAK beach BREAK coat") == (["a", "red", "hat"], "beach coat")
    assert texts(tokenizers, "a BREAK hat", prefixed=True)[0] == [f"photo of a id person . {word}" for word in ("a", "hat")]
    chunks, dropped = texts(tokenizers, "a hat BREAK " + "red " * 200)
    assert chunks[0] == "a hat" and [chunk.count("red") for chunk in chunks] == [0, 54, 54] and dropped.count("red") == 92


def test_weights_are_of_the_words_tokens_alone_in_every_chunk(tokenizers):
    (tokens,) = NANO.tokens
    tokenizer = tokenizers["nano", tokens]
    words = read_words("prompt", "a (red:1.5) hat BREAK [hat] a", True, True)
    first, second = encode_words(tokenizer, tokens, words, True, MOST).chunks
    for chunk, expected in ((first, {8: 1.5}), (second, {7: 1 / 1.1})):
        np.testing.assert_allclose(chunk.weights, [expected.get(i, 1.0) for i in range(tokens.max_tokens)])
    assert tokenizer.id_to_token(int(first.ids[8])) == "red</w>" and tokenizer.id_to_token(int(second.ids[7])) == "hat</w>"
