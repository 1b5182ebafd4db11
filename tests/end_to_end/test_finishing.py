"""Pictures become files of each tenant in turn: a flood of one delays its own first."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from faceclip import FaceCLIPPipeline
from server.process import Ports, TritonServer

from .callers import status, until

SLOW = """
import pathlib, struct, time
here = pathlib.Path(__file__).parent
def check(question):
    with (here / "order").open("a") as order:
        print(struct.unpack(">I", question["pictures"][0][16:20])[0], file=order)
    while (here / "closed").exists():
        time.sleep(0.01)
    return {"action": "allow"}
"""
POLICY = """
[[hooks]]
name = "slow"
on = ["pictures"]
call = "slow.py:check"
timeout_s = 60
"""
RUNNING, FLOOD, SHOP = 128, (160, 192), 224
"""Widths of pictures, by which the check knows them."""


@pytest.mark.proof
def test_files_are_made_of_each_tenant_in_turn(repository, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "policy.toml").write_text(POLICY)
    settings = [f"policy={tmp_path / 'policy.toml'}", "marks=none"]

    def order():
        file = tmp_path / "order"
        return [int(width) for width in file.read_text().split()] if file.exists() else []

    with (
        ThreadPoolExecutor(4) as callers,
        TritonServer(repository, Ports.free(), log=tmp_path / "log", settings=settings) as server,
    ):
        server.wait_ready()  # by drawing a picture, too
        (tmp_path / "order").unlink()
        (tmp_path / "closed").touch()
        with FaceCLIPPipeline.from_pretrained(server.url, timeout_s=120) as pipe:

            def draw(width, tenant):
                done = callers.submit(
                    pipe, "a castle", width=width, height=128, num_inference_steps=2, guidance_scale=1.0, tenant=tenant
                )
                answers.append(done)
                until(lambda: status(server)["finishing"] == len(answers))

            answers = []
            draw(RUNNING, "flood")
            until(lambda: order() == [RUNNING])
            for width in FLOOD:
                draw(width, "flood")
            draw(SHOP, "shop")
            time.sleep(0.5)  # decoded pictures are on their way to `finish` for some milliseconds, which nobody sees
            (tmp_path / "closed").unlink()
            assert all(len(each.result().images) == 1 for each in answers)
        server.stop(0)
    assert order() == [RUNNING, FLOOD[0], SHOP, FLOOD[1]]
