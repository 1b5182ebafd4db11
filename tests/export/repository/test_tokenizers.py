"""A repository follows from what `export onnx` wrote: its tokenizers, too."""

import json
import shutil
from dataclasses import replace

import pytest

from export import __main__ as export
from export.checkpoint import committed
from export.checkpoint.tokenizers import TOKENIZERS, TokenizerError, tokenizer_folders, tokenizer_sources
from export.onnx.tokenizers import export_tokenizers
from export.paths import onnx_folder
from export.repository.assemble import assemble
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.variants.flux import TINY_FLUX
from faceclip_serving.contract.variants.sdxl import NANO, TINY_SDXL
from faceclip_serving.contract.variants.table import VARIANTS

PUBLISHED = replace(TINY_SDXL, weights="checkpoint")
"""As `sdxl` is: its tokenizer comes with a checkpoint. As small as what is exported for the other tests."""


@pytest.fixture
def checkpoint(tmp_path):
    (source,) = tokenizer_folders(TINY_SDXL, None)
    shutil.copytree(source, tmp_path / "checkpoint" / PUBLISHED.tokens[0].source)
    return tmp_path / "checkpoint"


@pytest.fixture
def components(repository, tmp_path):
    """The components alone, as an export without tokenizers left them."""
    folder = tmp_path / "onnx"
    shutil.copytree(onnx_folder(TINY_SDXL), folder, ignore=shutil.ignore_patterns(TOKENIZERS))
    return folder


def state(folder):
    """Which folder it is: a number of the file system may come back for a new one, its time does not."""
    found = folder.stat()
    return found.st_ino, found.st_mtime_ns


def test_a_repository_needs_no_checkpoint_after_the_export(components, checkpoint, tmp_path, repository):
    export_tokenizers(PUBLISHED, checkpoint, components / TOKENIZERS)
    shutil.rmtree(checkpoint)
    made = assemble(PUBLISHED, CPU, components, tmp_path / "made")
    written = made / "prepare" / "1" / PUBLISHED.tokens[0].tokenizer
    assert written.read_bytes() == (repository / "prepare" / "1" / PUBLISHED.tokens[0].tokenizer).read_bytes()


def test_a_checkpoint_that_is_given_comes_before_the_export(components, checkpoint, tmp_path):
    export_tokenizers(PUBLISHED, checkpoint, components / TOKENIZERS)
    (source,) = tokenizer_sources(PUBLISHED, checkpoint, components)
    assert source == checkpoint / PUBLISHED.tokens[0].source
    (source,) = tokenizer_sources(PUBLISHED, None, components)
    assert source == components / TOKENIZERS / PUBLISHED.tokens[0].tokenizer


def test_a_repository_is_made_again_when_the_exported_tokenizer_changes(components, checkpoint, tmp_path):
    export_tokenizers(PUBLISHED, checkpoint, components / TOKENIZERS)
    made = assemble(PUBLISHED, CPU, components, tmp_path / "made")
    before = state(made / "prepare")
    assert state(assemble(PUBLISHED, CPU, components, made) / "prepare") == before
    file = components / TOKENIZERS / PUBLISHED.tokens[0].tokenizer
    file.write_text(json.dumps(json.loads(file.read_text())))
    assert state(assemble(PUBLISHED, CPU, components, made) / "prepare") != before


def test_a_missing_file_is_named_with_the_command_that_makes_it(components, tmp_path):
    with pytest.raises(TokenizerError) as caught:
        assemble(PUBLISHED, CPU, components, tmp_path / "made")
    told = str(caught.value)
    assert str(components / TOKENIZERS / PUBLISHED.tokens[0].tokenizer) in told
    assert f"`python -m export onnx --variant {PUBLISHED.name} --component tokenizers --checkpoint DIR`" in told
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS.values() if variant.weights != "checkpoint"])
def test_what_the_project_brings_stays_the_source_where_it_lies(variant, tmp_path, monkeypatch):
    """In the container weights/ does not lie there, and then the export is the source."""
    assert tokenizer_sources(variant, None, tmp_path) == tokenizer_folders(variant, None)
    if variant.weights == "committed":
        monkeypatch.setattr(committed, "WEIGHTS", tmp_path / "none")
        assert tokenizer_sources(variant, None, tmp_path) == [tmp_path / TOKENIZERS / t.tokenizer for t in variant.tokens]


@pytest.mark.parametrize("variant", [NANO, TINY_FLUX], ids=lambda variant: variant.name)
def test_tokenizers_are_kept_while_their_files_are_the_same(variant, tmp_path, monkeypatch):
    made = export_tokenizers(variant, None, tmp_path / TOKENIZERS)
    assert set(made["files"]) == {tokens.tokenizer for tokens in variant.tokens}
    before = state(tmp_path / TOKENIZERS)
    assert export_tokenizers(variant, None, tmp_path / TOKENIZERS) == made
    assert state(tmp_path / TOKENIZERS) == before
    (tmp_path / TOKENIZERS / variant.tokens[0].tokenizer).unlink()
    assert export_tokenizers(variant, None, tmp_path / TOKENIZERS) == made and state(tmp_path / TOKENIZERS) != before


def test_an_export_that_fails_leaves_what_was_there(tmp_path, checkpoint):
    export_tokenizers(PUBLISHED, checkpoint, tmp_path / TOKENIZERS)
    before = (tmp_path / TOKENIZERS / "metadata.json").read_text()
    (checkpoint / PUBLISHED.tokens[0].source / "merges.txt").unlink()
    with pytest.raises(TokenizerError, match=r"merges\.txt"):
        export_tokenizers(PUBLISHED, checkpoint, tmp_path / TOKENIZERS)
    assert (tmp_path / TOKENIZERS / "metadata.json").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", TOKENIZERS]


def test_the_command_writes_them(tmp_path, capsys):
    assert export.main(["onnx", "--variant", "tiny-flux", "--component", "tokenizers", "--output", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])["tokenizers"]
    assert set(shown["files"]) == {tokens.tokenizer for tokens in TINY_FLUX.tokens}
    assert all((tmp_path / "tiny-flux" / TOKENIZERS / name).is_file() for name in shown["files"])
