"""After a job has ended no prompt rests on the disk; whoever hears its end is told all."""

import json
from dataclasses import replace

from faceclip import FaceCLIPOutput
from gateway.jobs.answers import job_object
from gateway.jobs.states import Status

from .drawn import Server, drawing, ended, output, until, working

SECRETS = ("blue-suit", "bad-hands", "green-hat", "original-words", "strange-word")
DETAILS = {
    "parameters": {
        "prompt": "blue-suit", "negative_prompt": "bad-hands", "height": 64, "people": [{"faces": [0], "prompt": "green-hat"}]
    },
    "prompt_language": {
        "language": "zh", "translated": True, "original": "original-words", "prompt": "blue-suit", "negative_prompt": "bad-hands",
        "unknown": ["strange-word"],
    },
    "warnings": ["prompt: not translated, and left as they are: strange-word", "height: rounded"],
}  # fmt: skip


class Speaking(Server):
    """Its report has prompts, as the real one's."""

    async def draw(self, drawing):
        async for event in super().draw(drawing):
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
