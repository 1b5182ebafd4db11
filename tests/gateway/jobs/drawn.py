"""A drawing that needs no server, and jobs over it in a folder of their own."""

import asyncio
import hashlib
import io
from contextlib import asynccontextmanager
from dataclasses import replace

from PIL import Image

from faceclip import FaceCLIPOutput, Progress
from faceclip.result import Provenance
from gateway.drawing import Drawing
from gateway.jobs.service import Jobs, JobSettings

DRAWING = Drawing(
    model="faceclip",
    prompt="a portrait",
    photos=[b"photograph"],
    image=None,
    mask=None,
    parameters={"num_inference_steps": 3},
    request_id="asked",
    tenant="",
    priority="interactive",
    timeout_s=60.0,
    previews=False,
)


def drawing(**changes):
    return replace(DRAWING, **changes)


def picture(seed):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (seed % 256, 0, 0)).save(file, "PNG")
    return file.getvalue()


def output(seed=7):
    content = picture(seed)
    made = Provenance(seed, "faceclip", "nano", "server", "PNG", 8, 8, hashlib.sha256(content).hexdigest())
    return FaceCLIPOutput([content], [seed], {"warnings": []}, [made], [content])


class Server:
    """`draw` in the place of the pool's: what was drawn, and what is to go wrong."""

    def __init__(self, step_s=0.0, steps=3):
        self.step_s, self.steps = step_s, steps
        self.begun, self.steps_of = [], {}
        self.faults = []
        """Raised by the next drawings, one each: (after so many steps, error)."""

    async def draw(self, drawing, owner=""):
        self.begun.append(drawing)
        after, fault = self.faults.pop(0) if self.faults else (0, None)
        for step in range(1, self.steps + 1):
            if fault is not None and step > after:
                raise fault
            await asyncio.sleep(self.step_s)
            self.steps_of[drawing.request_id] = step
            yield Progress(step, self.steps, None, Image.new("RGB", (8, 8)) if drawing.previews else None)
        yield output(drawing.parameters["seed"])


@asynccontextmanager
async def working(folder, server, drain_s=0.0, **settings):
    jobs = Jobs(folder, JobSettings(**settings), server.draw, lambda job: {"id": job.id, "status": job.status})
    await jobs.start()
    try:
        yield jobs
    finally:
        await jobs.close(drain_s)


async def until(condition, timeout_s=20):
    for _ in range(int(timeout_s / 0.01)):
        found = await condition()
        if found:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


async def ended(jobs, job_id, owner=""):
    async def look():
        job = await jobs.get(job_id, owner)
        return job if job.status.ended else None

    return await until(look)
