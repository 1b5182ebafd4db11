"""A request whose faces are drawn again: its steps in the loop with all others, and every way out of that stage."""

import gc
import json
import queue
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from faceclip_serving.contract import operations
from faceclip_serving.contract.callers import Caller
from faceclip_serving.contract.errors import Cancelled, DeadlineExceeded, Stopping
from faceclip_serving.contract.names import VAE_ENCODER
from faceclip_serving.contract.operations import Admit, Cancel, Drain, End, Follow, Leave, Start, Status
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.variants.architectures import FACE_SIZE
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.sampling import service as module
from faceclip_serving.sampling.requests import Ended
from faceclip_serving.sampling.service import Service

from .details import NETWORKS, decoder, face
from .test_pictures import conditioning, denoise, job

SETTINGS = resolve(CPU, "faceclip", environment={})
SIDE, STEPS, AGAIN = 96, 6, 3
TALL = TINY_SDXL.defaults.height // TINY_SDXL.latent_scale
"""Latent rows of a face that is drawn again."""


class Denoiser:
    """Notes the height of each call's latents, and takes `seconds` for those of faces."""

    def __init__(self, seconds=0.0, fails=False):
        self.seconds, self.fails, self.heights = seconds, fails, []

    def __call__(self, inputs):
        self.heights.append(inputs["latents"].shape[2])
        if self.heights[-1] == TALL:
            time.sleep(self.seconds)
            if self.fails:
                raise MemoryError("too large")
        return denoise(inputs)

    @property
    def again(self):
        return self.heights.count(TALL)


@pytest.fixture
def faces(monkeypatch):
    """Two small ones in every picture; a test may change that."""
    found = [face(10, 10, 20), face(60, 50, 18)]
    monkeypatch.setattr(module, "find_faces", lambda pixels, detect: list(found))
    return found


@pytest.fixture
def service(start, faces):
    def make(denoiser, limits=None):
        lives, loop, threads = start(denoiser, limits=limits, decoder=decoder)
        made = Service(TINY_SDXL, "digest", loop, lives, threads, NETWORKS, NETWORKS, SETTINGS, YuNet)
        made.lives = lives
        lives._on_end = lambda request, error: made.ended(request.place)
        return made

    return make


class Reply:
    def __init__(self):
        self.answers = queue.Queue()
        self.send = self.refuse = self.answers.put

    def get(self):
        return self.answers.get(timeout=30)


def ask(service, operation=None, arrays=None):
    reply = Reply()
    control = {} if operation is None else {"control": operations.encode(operation)}
    service.handle({**(arrays or {}), **control}, reply, Caller.OWN)
    return reply


def told(reply):
    answer = reply.get()
    assert isinstance(answer, dict), answer
    return json.loads(answer["report"][0])


def admit(service, **options):
    return told(ask(service, Admit(**options)))["place"]


def arrays(key, place, **values):
    faces, rows = np.zeros((1, FACE_SIZE, FACE_SIZE, 3), np.uint8), len(conditioning(key)["embeddings"])
    ids, index = np.full((rows, 77), key, np.int64), np.full((rows, 1), -1, np.int64)
    asked = {"num_inference_steps": STEPS, "height": SIDE, "width": SIDE, "face_detail": 0.5, **values}
    one = replace(job(seed=key, **asked), place=place).encode()
    return {"job": one, "face_crops": faces, "face_index": index, "input_ids": ids}


def run(service, key, **values):
    return ask(service, arrays=arrays(key, admit(service), **values))


def until(holds):
    deadline = time.monotonic() + 30
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert holds()


def test_its_steps_are_counted_with_those_before_and_previews_show_the_whole_picture(service):
    made = service(Denoiser())
    place = admit(made)
    assert told(ask(made, Start(True), arrays(1, place))) == {"place": place}
    steps = []
    while "step" in (progress := json.loads((answer := ask(made, Follow(place)).get())["report"][0])):
        steps.append((progress["step"], progress["total"]))
        if "latents" in answer:
            assert answer["latents"].shape == (1, 4, SIDE // 8, SIDE // 8)
    assert steps == [(i, STEPS + AGAIN) for i in range(1, STEPS + AGAIN + 1)]
    clock = progress["clock"]
    assert clock["begun"] < clock["denoised"] <= clock["decoded"] < clock["detailed"]
    assert progress["sampling"]["ticks"] == STEPS + AGAIN
    assert [each["left"] for each in progress["face_detail"]["pictures"][0]] == [None, None]


def test_without_a_small_face_it_ends_after_the_usual_steps_with_the_usual_picture(service, faces):
    made = service(Denoiser())
    usual = run(made, 1, face_detail=0.0).get()
    again = run(made, 1).get()["image"]
    faces.clear()
    answer = run(made, 1).get()
    np.testing.assert_array_equal(answer["image"], usual["image"])
    assert (again != usual["image"]).any() and json.loads(usual["report"][0])["face_detail"] == {}
    assert json.loads(answer["report"][0])["warnings"][0].startswith("face_detail: no face was found in picture 0")


def test_it_is_the_same_beside_any_others_and_they_are_the_same_beside_it(service):
    made = service(Denoiser())
    kinds = [{}, {"face_detail": 0.0}, {"height": 64}, {"num_images_per_prompt": 2, "face_detail": 0.8}, {"face_detail": 0.0}]
    alone = [run(made, key, **values).get()["image"] for key, values in enumerate(kinds)]
    together = [run(made, key, **values) for key, values in enumerate(kinds)]
    for expected, reply in zip(alone, together, strict=True):
        np.testing.assert_array_equal(reply.get()["image"], expected)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda made, place: ask(made, Leave([place])), Cancelled),
        (lambda made, place: ask(made, Cancel("mine")), Cancelled),
        (lambda made, place: ask(made, End(place, "cancelled")), Cancelled),
        (lambda made, place: ask(made, Drain(cut=True)), Stopping),
    ],
    ids=["its caller leaves", "by its id", "by its holder", "the server is cut off"],
)
def test_whoever_ends_it_in_this_stage_ends_it_within_two_steps_and_nothing_is_kept(service, end, kind):
    denoiser = Denoiser(0.05)
    made = service(denoiser)
    place = admit(made, id="mine")
    reply = ask(made, arrays=arrays(1, place, num_inference_steps=40))
    until(lambda: denoiser.again >= 2)
    work = weakref.ref(made.lives._alive[place].work)
    before = denoiser.again
    end(made, place).get()
    assert isinstance(reply.get(), kind)
    time.sleep(0.3)
    assert denoiser.again <= before + 2
    ask(made, End(place, "cancelled")).get()
    assert told(ask(made, Status()))["in_flight"] == 0
    gc.collect()
    assert work() is None


def test_a_deadline_in_this_stage_tells_all_steps(service):
    denoiser = Denoiser(0.1)
    made = service(denoiser)
    reply = ask(made, arrays=arrays(1, admit(made, deadline=time.monotonic() + 1.0), num_inference_steps=40))
    error = reply.get()
    assert isinstance(error, DeadlineExceeded) and denoiser.again < 20
    assert int(str(error).partition(" after ")[2].split()[0]) >= 40


def test_a_drain_waits_for_it(service):
    denoiser = Denoiser(0.02)
    made = service(denoiser)
    reply = run(made, 1)
    until(lambda: denoiser.again)
    ask(made, Drain()).get()
    assert isinstance(reply.get(), dict) and told(ask(made, Status()))["active"] == 0


def test_what_fails_in_this_stage_is_its_own_and_a_neighbour_gets_its_picture(service, monkeypatch):
    made = service(Denoiser(fails=True))
    bad, good = run(made, 1), run(made, 2, face_detail=0.0)
    assert isinstance(bad.get(), MemoryError) and isinstance(good.get(), dict)

    def broken(pixels, detect):
        raise RuntimeError("no detector")

    monkeypatch.setattr(module, "find_faces", broken)
    bad, good = run(made, 1), run(made, 2, face_detail=0.0)
    assert str(bad.get()) == "no detector" and isinstance(good.get(), dict)


def test_whoever_leaves_while_faces_are_sought_hears_it_at_once_and_keeps_the_place_until_that_is_over(service, monkeypatch):
    made, seeking, going = service(Denoiser()), threading.Event(), threading.Event()

    def slow(pixels, detect):
        seeking.set()
        going.wait(30)
        return []

    monkeypatch.setattr(module, "find_faces", slow)
    place = admit(made)
    reply = ask(made, arrays=arrays(1, place))
    assert seeking.wait(30) and told(ask(made, Status()))["decoding"] == 1
    other = run(made, 2, face_detail=0.0)
    assert isinstance(other.get(), dict), "nobody else waits for the search"
    ask(made, Leave([place])).get()
    assert isinstance(reply.get(), Cancelled)
    ask(made, End(place, "cancelled")).get()
    assert told(ask(made, Status()))["leaving"] == 1
    going.set()
    until(lambda: told(ask(made, Status()))["leaving"] == 0)


def test_of_who_leaves_while_a_face_is_encoded_no_other_face_is(service):
    made, encoding, going, encoded = service(Denoiser()), threading.Event(), threading.Event(), []

    def slow(arrays):
        encoded.append(encoding.set())
        going.wait(30)
        return NETWORKS[VAE_ENCODER](arrays)

    made._forgetful = {**NETWORKS, VAE_ENCODER: slow}
    place = admit(made)
    reply = ask(made, arrays=arrays(1, place))
    assert encoding.wait(30)
    ask(made, Leave([place])).get()
    assert isinstance(reply.get(), Cancelled)
    ask(made, End(place, "cancelled")).get()
    going.set()
    until(lambda: told(ask(made, Status()))["leaving"] == 0)
    assert len(encoded) == 1, "of two"


def test_who_was_drawn_goes_before_who_waits_and_makes_room_for_nobody(service):
    """Its pictures are held meanwhile, so it is over the sooner."""
    from .limits import limited

    denoiser = Denoiser(0.02)
    made = service(denoiser, limited(1, 3))
    first = run(made, 1)
    others = [run(made, key, face_detail=0.0, num_inference_steps=30) for key in (2, 3)]
    order = queue.Queue()
    for number, reply in enumerate([first, *others]):
        threading.Thread(target=lambda number=number, reply=reply: (reply.get(), order.put(number)), daemon=True).start()
    assert order.get(timeout=30) in (0, 1) and order.get(timeout=30) in (0, 1), "at most the one that had begun meanwhile"
    assert order.get(timeout=30) == 2


def test_the_listener_hears_one_end(service):
    made = service(Denoiser(0.05))
    heard = []
    place = admit(made)
    entered = made.lives.enter

    def listening(place, encode, listener, *rest):
        entered(place, encode, lambda event: (heard.append(event), listener(event)), *rest)

    made.lives.enter = listening
    reply = ask(made, arrays=arrays(1, place))
    assert isinstance(reply.get(), dict)
    ask(made, End(place, "ok")).get()
    assert len(heard) == 1 and not isinstance(heard[0], Ended)
