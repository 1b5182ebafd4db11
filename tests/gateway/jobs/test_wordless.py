"""After a job has ended no prompt rests on the disk; whoever hears its end is told all."""

import json
from dataclasses import replace

import pytest

from faceclip import FaceCLIPOutput
from gateway.errors import ApiError
from gateway.jobs.answers import job_object
from gateway.jobs.kept.wordless import without_quotations
from gateway.jobs.states import Status

from .drawn import Server, drawing, ended, output, until, working

SECRETS = ("quoted-word", "blue-suit", "bad-hands", "green-hat", "original-words", "strange-word", "edited-away")
DETAILS = {
    "parameters": {
        "prompt": "blue-suit", "negative_prompt": "bad-hands", "original_prompt": "edited-away", "height": 64,
        "people": [{"faces": [0], "prompt": "green-hat"}]
    },
    "prompt_language": {
        "language": "zh", "translated": True, "original": "original-words", "prompt": "blue-suit", "negative_prompt": "bad-hands",
        "unknown": ["strange-word"],
    },
    "warnings": ["prompt: not translated, and left as they are: strange-word", "height: rounded"],
}  # fmt: skip


class Speaking(Server):
    """Its report has prompts, as the real one's."""

    async def draw(self, drawing, owner=""):
        async for event in super().draw(drawing, owner):
            yield replace(event, details=json.loads(json.dumps(DETAILS))) if isinstance(event, FaceCLIPOutput) else event


def found(folder):
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert any(file.name == "manifest.json" for file in files)
    return {secret for secret in SECRETS for file in files if secret.encode() in file.read_bytes()}


async def test_no_prompt_of_an_ended_job_is_on_the_disk(tmp_path):
    async with working(tmp_path, Speaking()) as jobs:
        job, _ = await jobs.accept(drawing(prompt="blue-suit"), "", "image_generation")
        *_, heard = [event async for event in jobs.follow(job.id, "", (-1, -1))]
        assert heard.status is Status.COMPLETED and heard.result["details"] == DETAILS
        assert job_object(heard, "", jobs)["result"]["data"][0]["revised_prompt"] == "blue-suit"
        later = await ended(jobs, job.id)

        async def gone():
            return not list((tmp_path / "waiting").iterdir())

        await until(gone)
        assert found(tmp_path) == set()
        assert later.result["details"]["parameters"] == {"height": 64, "people": [{"faces": [0]}]}
        assert later.result["details"]["warnings"] == ["height: rounded"]
        assert job_object(later, "", jobs)["result"]["data"][0]["revised_prompt"] is None


async def test_no_prompt_of_a_link_is_on_the_disk(tmp_path):
    async with working(tmp_path, Speaking()) as jobs:
        await jobs.keep(replace(output(), details=DETAILS))
        assert found(tmp_path) == set()


QUOTING = [
    "prompt: expected a weight of 0 to 4, got 99 at character 3: '(quoted-word:99)'; write (word:1.2)",
    "prompt: '<lora:quoted-word:1>' is no part of it; the operator adds LoRAs",
    "negative_prompt: 'it's (quoted-word)' and 'quoted-word's hat' are left out",
    'people: expected a list, got "it\'s quoted-word"',
    "prompt: too long, got 'a castle and quoted-word and",
    "prompt: 'a' goes, got 'quoted-word",
    "prompt: got 'one\nquoted-word'",
]


@pytest.mark.parametrize("message", QUOTING)
async def test_what_is_kept_quotes_nothing(tmp_path, message):
    server = Server()
    server.faults = [(0, ApiError(400, message, code="invalid_value", param="prompt"))]
    async with working(tmp_path, server) as jobs:
        job, _ = await jobs.accept(drawing(prompt="quoted-word"), "", "image_generation")
        *_, heard = [event async for event in jobs.follow(job.id, "", (-1, -1))]
        assert heard.error["message"] == message, "whoever follows is told all"
        later = await ended(jobs, job.id)
        name = message.partition(":")[0]
        assert later.status is Status.FAILED and later.error["message"].startswith(f"{name}: ")
        await jobs.keep(replace(output(), details={"warnings": [message]}))

        async def gone():
            return not list((tmp_path / "waiting").iterdir())

        await until(gone)
        assert found(tmp_path) == set()


def test_what_quotes_nothing_is_kept_as_it_was():
    for message in ("height: expected 64 to 2048, got 7", "the server's own words; it doesn't matter whose"):
        assert without_quotations(message) == message
