"""A Marian network at tiny width, exported and run by the client: the same numbers and sentences as transformers' own."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import MarianConfig, MarianMTModel

from export.__main__ import main
from export.translator.command import write_translator
from export.translator.graphs import TranslatorError, sinusoids
from export.translator.pieces import tokenizer_of
from faceclip.language import translate
from faceclip.language.marian import Marian
from faceclip.language.translator import TranslationError
from faceclip.language.translators import ENVIRONMENT_VARIABLE

SPACE = "\u2581"
PIECES = [
    SPACE,
    *"一个女人站在海边穿着红色连衣裙的，。",
    "女人",
    "红色",
    f"{SPACE}女人",
    *(SPACE + word for word in ("a", "the", "woman", "by", "sea", "in", "red", "dress")),
]
WORDS = ["</s>", "<unk>", *PIECES, "<pad>"]
TOLERANCE = 1e-4
CONTROL = 3
END = 4.0
"""Added to the score of an end, so that some sentences have one."""


def field(number: int, value: bytes | int | float) -> bytes:
    """One of a protobuf message."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        return bytes([number << 3, value])
    length, told = len(value), b""
    while length > 127:
        told, length = told + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + told + bytes([length]) + value


def spm(pieces: list[str], kind: int = 1) -> bytes:
    """A SentencePiece model: longer pieces are likelier than what they are made of."""
    special = [
        field(1, field(1, name.encode()) + field(2, 0.0) + field(3, code)) for name, code in (("<unk>", 2), ("</s>", CONTROL))
    ]
    rows = [field(1, field(1, piece.encode()) + field(2, -10.0 + 5 * (len(piece) > 1))) for piece in pieces]
    return b"".join([*special, *rows, field(2, field(3, kind))])


@pytest.fixture(scope="module", params=["swish", "relu"])
def checkpoint(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MarianMTModel]:
    config = MarianConfig(
        vocab_size=len(WORDS), d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=2,
        encoder_ffn_dim=48, decoder_ffn_dim=40, max_position_embeddings=48, activation_function=request.param, scale_embedding=True,
        pad_token_id=len(WORDS) - 1, eos_token_id=0, decoder_start_token_id=len(WORDS) - 1, forced_eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(7)
    model = MarianMTModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embed_positions" not in name:
                weight.normal_(1.0 if "norm.weight" in name else 0.0, 0.2 if "shared" in name else 0.15)
        model.final_logits_bias.normal_(0, 0.5)
        model.final_logits_bias[0, 0] += END
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    (folder / "source.spm").write_bytes(spm(PIECES))
    return folder, model


@pytest.fixture(scope="module")
def translator(checkpoint: tuple[Path, MarianMTModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_translator(checkpoint[0], "zh", tmp_path_factory.mktemp("out") / "translator")


def sources(count: int) -> list[list[int]]:
    r = np.random.default_rng(3)
    return [[*map(int, r.integers(2, len(WORDS) - 1, length)), 0] for length in r.integers(1, 20, count)]


def test_positions_are_transformers_own(checkpoint: tuple[Path, MarianMTModel]) -> None:
    own = checkpoint[1].model.encoder.embed_positions.weight.detach().numpy()
    assert np.abs(sinusoids(*own.shape) - own).max() < 1e-6


def test_every_step_has_the_numbers_of_transformers(checkpoint: tuple[Path, MarianMTModel], translator: Path) -> None:
    _, model = checkpoint
    encoder, decoder = (onnxruntime.InferenceSession(translator / f"{name}.onnx") for name in ("encoder", "decoder"))
    for source in sources(5):
        target = [model.config.decoder_start_token_id, *sources(1)[0]]
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target])).logits[0].numpy()
        (memory,) = encoder.run(None, {"tokens": np.array([source], np.int64)})
        past = np.zeros((3, 2, 2, 2, 0, 16), np.float32)
        for token, row in zip(target, expected, strict=True):
            logits, past = decoder.run(None, {"token": np.array([[token]] * 2, np.int64), "past": past, "memory": memory})
            assert np.abs(logits - row).max() < TOLERANCE


SEARCHES = [("swish", beams, longest, count) for beams in (1, 2, 4, 6) for longest, count in ((5, 12), (20, 7))]
"""Activation of the network, beams, and how many sentences of at most how many tokens. What the activation changes are a step's numbers,
which are compared above; that the search reads them is seen once."""


@pytest.mark.parametrize(
    ("checkpoint", "beams", "longest", "count"), [*SEARCHES, ("relu", 4, 20, 7)], indirect=["checkpoint"], scope="module"
)
def test_sentences_are_those_of_transformers(
    checkpoint: tuple[Path, MarianMTModel], translator: Path, beams: int, longest: int, count: int
) -> None:
    _, model = checkpoint
    client, never, said, asked = Marian(translator), model.config.pad_token_id, [], sources(count)
    padded = pad_sequence([torch.tensor(source) for source in asked], batch_first=True, padding_value=never)
    options = {"num_beams": beams, "max_length": longest, "do_sample": False, "bad_words_ids": [[never]]}
    with torch.no_grad():
        made = model.generate(padded, attention_mask=padded != never, **options)
    for source, row in zip(asked, made.tolist(), strict=True):
        expected = [token for token in row[1:] if token not in (0, never)]
        assert client.generate(source, beams, longest) == expected
        said.append(tuple(expected))
    assert len({*said}) > 2
    assert longest == 5 or len({len(each) for each in said}) > 2, "they end at several places"


def test_a_prompt_is_translated_sentence_by_sentence_and_keeps_its_notation(
    translator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(translator))
    client = Marian(translator)
    done = translate("女人站在海边。(红色:1.3) BREAK a red dress 䶮")
    assert done.translated and "(" in done.prompt and ":1.3)" in done.prompt and " BREAK" in done.prompt
    assert done.unknown == ("䶮",)
    numbers = [WORDS.index(piece) for piece in (f"{SPACE}女人", *"站在海边。")]
    assert done.prompt.startswith(client.spoken(client.generate([*numbers, 0])))
    assert translate("a red dress").prompt == "a red dress"
    other = translate("женщина")
    assert not other.translated and "is for 'zh', not for 'ru'" in other.warnings[0]


def test_what_is_too_long_for_the_network_is_told(translator: Path) -> None:
    with pytest.raises(TranslationError, match=r"at most \d+ are read"):
        Marian(translator)("红" * 2000, "zh")


def test_control_pieces_are_no_text_and_the_likeliest_pieces_are_taken() -> None:
    made = tokenizer_of(spm(PIECES))
    assert "</s>" not in made.get_vocab()
    assert made.encode("女人  红色").tokens == [f"{SPACE}女人", SPACE, "红色"]


@pytest.mark.parametrize("content", [b"", b"no model at all", spm(PIECES)[:-30] + b"\xff" * 12, spm(PIECES, kind=2)])
def test_what_is_no_model_of_unigrams_is_told(content: bytes) -> None:
    with pytest.raises(TranslatorError, match=r"source\.spm: expected a SentencePiece model"):
        tokenizer_of(content)


def test_pieces_are_those_of_sentencepiece() -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not a package of this project")
    lines = [
        "一个女人站在海边，穿着红色连衣裙。",
        "一个男人坐在公园里。",
        "Ａ woman by the sea, 红色  的裙子",
        "①②③ ﬁne … ℃",
    ] * 40
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=file,
        vocab_size=90,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    theirs, ours = sentencepiece.SentencePieceProcessor(model_proto=file.getvalue()), tokenizer_of(file.getvalue())
    for text in [*lines[:4], "穿着红色的女人", " a  woman ", "红色一个", "ｗｏｍａｎ"]:
        assert ours.encode(text).tokens == theirs.encode(text, out_type=str), text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scale_embedding": False}, "scale_embedding: expected True, got False"),
        ({"activation_function": "tanh"}, "activation_function: expected swish or"),
        ({"model_type": "bart"}, "model_type: expected marian, got 'bart'"),
    ],
)
def test_another_network_is_refused_by_name(
    checkpoint: tuple[Path, MarianMTModel], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    for file in checkpoint[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(TranslatorError, match=said):
        write_translator(tmp_path, "zh", tmp_path / "out")


def test_the_command_writes_a_folder_and_tells_what_is_missing(
    checkpoint: tuple[Path, MarianMTModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["translator", "--checkpoint", str(checkpoint[0]), "--to", str(tmp_path / "made")]) == 0
    assert json.loads(capsys.readouterr().out) == {"translator": str(tmp_path / "made")}
    assert Marian(tmp_path / "made").language == "zh"
    assert main(["translator", "--checkpoint", str(tmp_path / "none"), "--to", str(tmp_path / "other")]) == 1
    assert "--only translator" in capsys.readouterr().err


def test_a_folder_that_is_none_leaves_the_prompt_with_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    done = translate("女人")
    assert (done.prompt, done.translated) == ("女人", False)
    assert "expected what `python -m export translator` writes" in done.warnings[0]
