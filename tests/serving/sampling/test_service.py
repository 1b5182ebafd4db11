"""What the sampler answers, with a plain callable as denoiser."""

import json
import queue
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

from faceclip_serving.contract import operations
from faceclip_serving.contract.callers import Caller
from faceclip_serving.contract.components import components
from faceclip_serving.contract.errors import OUTCOMES, Busy, Cancelled, InvalidRequest, outcome
from faceclip_serving.contract.names import FACE_ENCODER, TEXT_ENCODER
from faceclip_serving.contract.operations import (
    Admit,
    Cancel,
    Describe,
    Drain,
    End,
    Follow,
    Leave,
    Lost,
    Prepare,
    Prepared,
    Renew,
    Start,
    Status,
)
from faceclip_serving.contract.placements import CPU
from faceclip_serving.contract.settings import resolve
from faceclip_serving.contract.variants.architectures import FACE_SIZE
from faceclip_serving.contract.variants.sdxl import TINY_SDXL
from faceclip_serving.face.detectors import YuNet
from faceclip_serving.face.familiarity import FEATURE, FaceStatistics
from faceclip_serving.sampling import service as module
from faceclip_serving.sampling.pictures import start_pictures
from faceclip_serving.sampling.service import Service

from .limits import limited
from .test_loop import Denoiser, alone
from .test_pictures import conditioning, job

SETTINGS = resolve(CPU, "faceclip", environment={})


def face_encoder(arrays):
    sizes = {"faces": len(arrays["face_crops"])}
    return {tensor.name: np.zeros(tensor.shape(sizes), np.float32) for tensor in TINY_SDXL.face_features}


def text_encoder(arrays):
    assert arrays.keys() == {tensor.name for tensor in components(TINY_SDXL)[TEXT_ENCODER].inputs}
    return conditioning(int(arrays["input_ids"][0, 0]))


NETWORKS = {FACE_ENCODER: face_encoder, TEXT_ENCODER: text_encoder}


class Reply:
    """Collects the one answer of a request."""

    def __init__(self):
        self.answers = queue.Queue()
        self.send = self.refuse = self.answers.put

    def get(self):
        answer = self.answers.get(timeout=30)
        assert self.answers.empty()
        return answer


class TestService:
    @pytest.fixture
    def service(self, start):
        def make(denoiser, limits=None, digest="digest"):
            lives, loop, threads = start(denoiser, limits=limits)
            made = Service(TINY_SDXL, digest, loop, lives, threads, NETWORKS, NETWORKS, SETTINGS, YuNet)
            lives._on_end = lambda request, error: made.ended(request.place)
            made.threads, made.lives = threads, lives
            return made

        return make

    def ask(self, service, operation=None, arrays=None, who=Caller.OWN):
        reply = Reply()
        control = {} if operation is None else {"control": operations.encode(operation)}
        service.handle({**(arrays or {}), **control}, reply, who)
        return reply

    def admit(self, service, **options):
        return self.report(self.ask(service, Admit(**options)))["place"]

    def run(self, service, key, **values):
        """The reply of a run that was admitted before."""
        return self.ask(service, arrays=self.arrays(key, self.admit(service), **values))

    def start(self, service, key, previews=False, **values):
        place = self.admit(service)
        return self.report(self.ask(service, Start(previews), self.arrays(key, place, **values)))["place"]

    def report(self, reply):
        answer = reply.get()
        assert isinstance(answer, dict), answer
        return json.loads(answer["report"][0])

    def arrays(self, key, place="", **values):
        faces, rows = np.zeros((1, FACE_SIZE, FACE_SIZE, 3), np.uint8), len(conditioning(key)["embeddings"])
        ids, index = np.full((rows, 77), key, np.int64), np.full((rows, 1), -1, np.int64)
        told = replace(job(seed=key, **values), place=place).encode()
        return {"job": told, "face_crops": faces, "face_index": index, "input_ids": ids}

    def in_flight(self, service):
        return self.report(self.ask(service, Status()))["in_flight"]

    @pytest.mark.parametrize(("remember", "asked"), [(True, "memory"), (False, "forgetful")])
    def test_a_request_says_whether_its_encodings_may_be_remembered(self, service, remember, asked):
        made, seen = service(Denoiser(0.0)), []

        def named(name):
            return {key: lambda arrays, run=run: seen.append(name) or run(arrays) for key, run in NETWORKS.items()}

        made._networks, made._forgetful = named("memory"), named("forgetful")
        self.run(made, 1, remember=remember).get()
        assert set(seen) == {asked} and len(seen) == 2

    def test_features_alone_are_answered_when_the_encoder_has_come_to_them_and_the_place_is_its_holders_to_end(self, service):
        made, seen = service(Denoiser(0.01)), []
        told = {tensor.name: np.full(tensor.shape({"faces": 2}), 3, np.float32) for tensor in TINY_SDXL.face_features}
        made._networks = {FACE_ENCODER: lambda arrays: seen.append("memory") or told}
        made._forgetful = {FACE_ENCODER: lambda arrays: seen.append(arrays.keys()) or told}
        faces = {"face_crops": np.zeros((2, FACE_SIZE, FACE_SIZE, 3), np.uint8)}
        for remember in (True, False):
            place = self.admit(made)
            answer = self.ask(made, Describe(place, remember=remember), faces).get()
            assert answer.keys() == {*told, "report"} and all(answer[name] is told[name] for name in told)
            assert self.in_flight(made) == 1
            assert self.report(self.ask(made, End(place, "ok"))) == {"ended": True} and self.in_flight(made) == 0
        assert seen == ["memory", {"face_crops"}]

    def test_features_that_cannot_be_found_are_told_so_and_a_place_that_is_gone_has_none(self, service):
        made = service(Denoiser(0.0))

        def fails(arrays):
            raise RuntimeError("no memory")

        made._networks = {FACE_ENCODER: fails}
        faces = {"face_crops": np.zeros((1, FACE_SIZE, FACE_SIZE, 3), np.uint8)}
        place = self.admit(made)
        assert str(self.ask(made, Describe(place), faces).get()) == "no memory"
        assert isinstance(self.ask(made, Describe(place), faces).get(), RuntimeError)
        assert isinstance(self.ask(made, Describe("nowhere"), faces).get(), Cancelled)

    def test_features_that_were_recalled_need_no_face_encoder_and_give_the_same_picture(self, service):
        made, seen = service(Denoiser(0.01)), []

        def encoder(arrays):
            seen.append({name: arrays[name] for name in ("class_token", "patch_token")})
            return text_encoder(arrays)

        made._networks = {TEXT_ENCODER: encoder}
        features = {t.name: np.full(t.shape({"faces": 1}), i, np.float32) for i, t in enumerate(TINY_SDXL.face_features)}
        arrays = self.arrays(1, self.admit(made)) | {f"recalled_{name}": array for name, array in features.items()}
        del arrays["face_crops"]
        np.testing.assert_array_equal(self.ask(made, arrays=arrays).get()["image"], alone(1, job(seed=1)))
        assert all(seen[0][name] is features[name] for name in features)

    def test_a_run_that_is_followed_reports_every_step_and_ends_with_the_same_latents(self, service):
        made = service(Denoiser(0.01))
        place = self.start(made, 1, previews=True)
        steps = []
        while True:
            answer = self.ask(made, Follow(place)).get()
            progress = json.loads(answer["report"][0])
            if "step" not in progress:
                break
            steps.append(progress["step"])
            assert progress.keys() == {"step", "total", "timestep"} and progress["total"] == 4
            assert answer["latents"].shape == (1, 4, 8, 8)
        assert steps == [1, 2, 3, 4]
        np.testing.assert_array_equal(answer["image"], alone(1, job(seed=1)))
        assert progress["sampling"]["ticks"] == 4
        clock = progress["clock"]
        assert clock["conditioned"] <= clock["begun"] < clock["denoised"] <= clock["decoded"]
        over = self.ask(made, Follow(place)).get()
        assert isinstance(over, InvalidRequest) and str(over) == "control: the run has ended, and its end was told"
        assert self.in_flight(made) == 1, "its pictures are decoded"
        assert self.report(self.ask(made, End(place, "ok"))) == {"ended": True}
        assert self.in_flight(made) == 0
        deadline = time.monotonic() + 30
        while made._followers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not made._followers, "nothing is kept of a request that has ended"

    def test_steps_that_are_left_out_are_told_with_the_next_one_that_is_computed(self, service):
        made = service(Denoiser(0.01))
        place = self.start(made, 1, num_inference_steps=12, step_cache=0.6)
        steps, answer = [], self.ask(made, Follow(place)).get()
        while "step" in (progress := json.loads(answer["report"][0])):
            steps.append(progress["step"])
            answer = self.ask(made, Follow(place)).get()
        used = progress["sampling"]
        assert used["skipped_steps"] > 0 and len(steps) == used["ticks"] == 12 - used["skipped_steps"]
        assert steps == sorted(set(steps)) and steps[-1] == 12

    def test_a_slow_follower_hears_every_step_in_order_and_few_previews_are_kept(self, service):
        made = service(Denoiser(0.0))
        steps = 12
        place = self.start(made, 1, previews=True, num_inference_steps=steps)
        deadline = time.monotonic() + 30
        while len(made._followers[place]._unheard) <= steps and time.monotonic() < deadline:
            time.sleep(0.01)  # the run has ended before anybody asked
        answers = [self.ask(made, Follow(place)).get() for _ in range(steps + 1)]
        assert [json.loads(answer["report"][0]).get("step") for answer in answers] == [*range(1, steps + 1), None]
        assert [answer["latents"].shape for answer in answers if "latents" in answer] == [(1, 4, 8, 8)] * SETTINGS[
            "previews_kept"
        ]

    def test_a_caller_who_leaves_ends_the_run_and_whoever_asks_is_told(self, service):
        made = service(Denoiser(0.01))
        place = self.start(made, 1, num_inference_steps=100)
        assert self.report(self.ask(made, Follow(place)))["step"] >= 1
        assert self.report(self.ask(made, End(place, "cancelled"))) == {"ended": True}
        while isinstance(answer := self.ask(made, Follow(place)).get(), dict):
            pass
        assert isinstance(answer, Cancelled) and self.in_flight(made) == 0

    @pytest.mark.parametrize("how", [*OUTCOMES])
    @pytest.mark.parametrize("first", [*filter(OUTCOMES.get, OUTCOMES)])
    def test_the_holder_of_a_place_hears_by_what_its_request_had_ended_before_and_that_alone_is_counted(
        self, service, first, how
    ):
        made, counted, said = service(Denoiser(0.01)), [], threading.Event()
        made.lives._on_end = lambda request, error: counted.append(outcome(error))
        place = self.admit(made)
        assert made.lives.give_up(place, OUTCOMES[first]("the reason"))
        told = self.report(self.ask(made, End(place, how)))
        assert told == {"ended": False, "outcome": first, "why": "the reason"} and self.in_flight(made) == 0
        made.lives.messages.put(said.set)
        assert said.wait(30) and counted == [first]

    def test_a_deadline_that_has_passed_is_told_to_whoever_ends_its_request_by_something_else(self, service):
        made = service(Denoiser(0.01))
        place = self.admit(made, deadline=time.monotonic() - 1)
        assert self.report(self.ask(made, Lost([place]))) == {"lost": [place]}
        told = self.report(self.ask(made, End(place, "invalid")))
        assert not told["ended"] and told["outcome"] == "deadline" and told["why"].startswith("the request's timeout ran out")

    def test_whoever_has_left_is_told_whether_that_ended_something(self, service):
        made = service(Denoiser(0.01))
        place = self.start(made, 1, num_inference_steps=100)
        assert self.report(self.ask(made, Leave([place]))) == {"ended": [place]}
        assert self.report(self.ask(made, Leave([place]))) == {"ended": []}
        assert self.report(self.ask(made, Lost([place, "never"]))) == {"lost": [place, "never"]}

    @pytest.mark.parametrize("followed", [False, True])
    def test_an_unusual_schedule_delays_nobody_else_and_who_leaves_meanwhile_is_told_at_once(
        self, service, monkeypatch, followed
    ):
        """Here one that is never found."""
        made, going = service(Denoiser(0.0)), threading.Event()
        start_pictures(TINY_SDXL, job(seed=1), conditioning(1))  # this schedule is known
        monkeypatch.setattr(module, "is_known", lambda variant, request, begin: request.num_inference_steps == 4)
        monkeypatch.setattr(
            module, "start_schedule", lambda variant, asked, begin: asked.num_inference_steps == 4 or going.wait(30)
        )
        place = self.admit(made)
        arrays = self.arrays(1, place, num_inference_steps=37)
        unusual = self.ask(made, Start() if followed else None, arrays)
        if followed:
            assert self.report(unusual) == {"place": place}
            unusual = self.ask(made, Follow(place))
        assert isinstance(self.run(made, 2).get(), dict)
        assert self.report(self.ask(made, Leave([place]))) == {"ended": [place]}
        assert str(unusual.get()) == "its caller is gone"
        going.set()

    def test_a_schedule_that_cannot_be_run_is_refused_before_anything_is_encoded(self, service):
        made = service(Denoiser(0.0))
        made._networks = {}
        options = b'{"use_karras_sigmas": true, "rescale_betas_zero_snr": true}'
        for _ in range(2):  # looked up, and known
            place = self.admit(made)
            arrays = self.arrays(
                1, place, num_inference_steps=49, scheduler="DPMSolverMultistepScheduler", scheduler_options=options
            )
            refused = self.ask(made, arrays=arrays).get()
            assert isinstance(refused, InvalidRequest) and str(refused).startswith("scheduler_options: ")
            ended = self.report(self.ask(made, End(place, "invalid")))
            assert ended == {"ended": False, "outcome": "invalid", "why": str(refused)}, "it has ended already"
            assert self.in_flight(made) == 0

    def test_a_reference_unlike_the_others_is_a_warning_and_without_references_there_is_none(self, service):
        made, name = service(Denoiser(0.0)), TINY_SDXL.identity.name

        def unlike(arrays):
            found = face_encoder(arrays)
            found[name][:, :, 0] = 1.0
            found[name][-1] = -found[name][-1]
            return found

        made._networks = {**NETWORKS, FACE_ENCODER: unlike}
        crops = np.zeros((5, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        for rows, weights, warned in ((None, [0.2] * 5, 1), ({"unconditional": [0], "text": [1]}, [], 0)):
            place = self.admit(made)
            arrays = {**self.arrays(1, place), "face_crops": crops}
            arrays["job"] = replace(job(rows, weights, seed=1), place=place).encode()
            told = self.report(self.ask(made, arrays=arrays))["warnings"]
            assert len(told) == warned and all(each.startswith("face_images[4]: its mean likeness") for each in told)

    def test_a_face_unlike_those_that_were_learnt_is_a_warning_of_photographs_and_of_identities(self, service):
        (tensor,) = [each for each in TINY_SDXL.face_features if each.name == FEATURE]
        patches, width = tensor.axes[-2:]
        learnt = FaceStatistics(np.zeros((patches, width), np.float32), *[np.eye(width, dtype=np.float32)] * 2, bound=1.0)

        def second_is_unlike(arrays):
            found = face_encoder(arrays)
            found[FEATURE][1] = 1.0
            return found

        recalled = {f"recalled_{t.name}": np.ones(t.shape({"faces": 1}), np.float32) for t in TINY_SDXL.face_features}
        crops = np.zeros((2, FACE_SIZE, FACE_SIZE, 3), np.uint8)
        reports = [{"photo": {}}, {"photo": {}}, {"identity": {}}]
        for known, rows, weights, told in (
            (learnt, None, [1 / 3] * 3, ["face_images[1]", "identity"]),
            (None, None, [1 / 3] * 3, []),
            (learnt, {"unconditional": [0], "text": [1]}, [], []),
        ):
            made = service(Denoiser(0.0))
            made._known_faces, made._networks = known, {**NETWORKS, FACE_ENCODER: second_is_unlike}
            place = self.admit(made)
            sent = replace(job(rows, weights, seed=1), place=place, faces=reports[: len(weights)])
            arrays = {**self.arrays(1, place), "face_crops": crops, **(recalled if weights else {}), "job": sent.encode()}
            warnings = self.report(self.ask(made, arrays=arrays))["warnings"]
            found = [each.partition(":")[0] for each in warnings if "unlike all that this model has learnt" in each]
            assert found == told

    @pytest.mark.proof
    @pytest.mark.parametrize("asked_first", [True, False])
    @pytest.mark.parametrize("at", ["a step", "the last word"])
    def test_a_stream_whose_answer_cannot_be_sent_hears_why_and_loses_no_place(self, service, caplog, asked_first, at):
        """As where /dev/shm is full: whoever waits is told, once, and the run is over."""
        made = service(Denoiser(0.05 if asked_first else 0.0), limited(lease_s=2.0))
        place = self.start(made, 1)
        if at == "the last word":
            for _ in range(4):
                self.ask(made, Follow(place)).get()
        if not asked_first:
            deadline = time.monotonic() + 30
            while not made._followers[place]._unheard and time.monotonic() < deadline:
                time.sleep(0.01)
        reply, full = Reply(), MemoryError("Failed to increase the shared memory pool size")

        def fails(arrays):
            raise full

        reply.send = fails
        made.handle({"control": operations.encode(Follow(place))}, reply, Caller.OWN)
        assert reply.get() is full
        self.ask(made, End(place, "failed")).get()
        deadline = time.monotonic() + 30
        while self.in_flight(made) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.in_flight(made) == 0

    def test_a_start_that_is_refused_leaves_no_follower(self, service):
        made = service(Denoiser())
        refused = self.ask(made, Start(), self.arrays(1, "no place")).get()
        assert isinstance(refused, Cancelled) and not made._followers

    def test_threads_count_as_alive_only_while_all_are_and_the_sampler_is_not_over(self, service):
        made = service(Denoiser())
        assert made.status()["threads_alive"]
        made._threads = SimpleNamespace(alive=False)
        assert not made.status()["threads_alive"]
        made._threads = SimpleNamespace(alive=True)
        made.lives.stop()
        assert not made.status()["threads_alive"]

    def test_who_follows_what_never_was_is_told_so(self, service):
        refused = self.ask(service(Denoiser()), Follow("unknown")).get()
        assert isinstance(refused, InvalidRequest)
        assert str(refused) == "control: no such run; it has ended, and its end was told"

    def test_a_second_follower_takes_the_firsts_place_and_both_are_answered(self, service):
        made = service(Denoiser(0.2))
        place = self.start(made, 1)
        first, second = self.ask(made, Follow(place)), self.ask(made, Follow(place))
        left = first.get()
        assert isinstance(left, Cancelled) and str(left) == "another watcher follows this run now"
        assert self.report(second)["step"] == 1

    def test_mixed_versions_and_unknown_operations_are_refused(self, service):
        made = service(Denoiser(), digest="another digest")
        assert "assemble" in str(self.ask(made, arrays=self.arrays(1)).get())
        assert "assemble" in str(self.ask(made, Start(), arrays=self.arrays(1)).get())
        for control in (b'{"op": "nonsense"}', b"[", b'{"op": "follow"}', b'{"op": "end", "place": 3}', b'{"op": ["admit"]}'):
            reply = Reply()
            made.handle({"control": np.array([control], object)}, reply, Caller.OWN)
            assert isinstance(answer := reply.get(), InvalidRequest) and str(answer).startswith("control: "), control
        assert self.in_flight(made) == 0

    def test_a_full_server_refuses_at_once_and_takes_work_again_later(self, service):
        made = service(Denoiser(0.01), limited(1, 1))
        first, second = self.run(made, 1), self.run(made, 2)
        refused = self.ask(made, Admit()).get()
        assert isinstance(refused, Busy) and "retry after" in str(refused)
        for reply, key in ((first, 1), (second, 2)):
            np.testing.assert_array_equal(reply.get()["image"], alone(key, job(seed=key)))
        assert self.admit(made)

    def test_a_request_is_in_flight_until_its_pictures_are_ready_and_needs_no_place_meanwhile(self, service):
        made = service(Denoiser(0.0), limited(1, 0))
        place = self.admit(made)
        assert self.report(self.ask(made, Prepare(place))) == {}
        assert self.report(self.ask(made, Renew([place, "?"]))) == {"gone": ["?"], "round_s": 0.0}
        answer = self.ask(made, arrays=self.arrays(1, place)).get()
        assert json.loads(answer["report"][0])["place"] == place
        assert self.in_flight(made) == 1
        assert isinstance(self.run(made, 2).get(), dict), "its place is free"
        assert self.report(self.ask(made, Renew([place])))["round_s"] > 0
        self.ask(made, End(place, "ok"))
        assert self.report(self.ask(made, Status()))["finishing"] == 1

    def test_what_draws_nothing_is_its_holders_to_end_once_it_is_prepared(self, service):
        made = service(Denoiser())
        place, gone = self.admit(made, id="mine"), self.admit(made, id="other")
        for each in (place, gone):
            assert self.report(self.ask(made, Prepare(each))) == {}
        assert self.report(self.ask(made, Prepared(place))) == {}
        for operation in (Cancel("mine"), Cancel("other")):
            assert self.report(self.ask(made, operation)) == {"ended": operation.id == "other"}
        assert "ended by its id" in str(self.ask(made, Prepared(gone)).get())
        assert self.report(self.ask(made, End(place, "ok"))) == {"ended": True}

    def test_a_place_that_is_lost_is_the_end_of_the_request(self, service):
        made = service(Denoiser())
        place = self.admit(made)
        self.ask(made, End(place))
        assert isinstance(self.ask(made, Prepare(place)).get(), Cancelled)
        assert isinstance(self.ask(made, arrays=self.arrays(1, place)).get(), Cancelled)
        assert isinstance(self.ask(made, arrays=self.arrays(1, "never admitted")).get(), Cancelled)

    def test_a_request_is_ended_by_its_id(self, service):
        made = service(Denoiser(0.01))
        place = self.admit(made, id="mine", tenant="t")
        reply = self.ask(made, arrays=self.arrays(1, place, num_inference_steps=200))
        assert self.report(self.ask(made, Cancel("mine"))) == {"ended": True}
        assert isinstance(reply.get(), Cancelled)
        assert self.report(self.ask(made, Cancel("mine"))) == {"ended": False}

    @pytest.mark.parametrize("operation", [None, *get_args(operations.Operation)])
    def test_only_own_models_and_for_some_operations_an_operator_are_heard(self, service, operation):
        made = service(Denoiser())
        place = self.admit(made)
        needed = {"place": place, "places": [place], "id": "x"}
        asked = operation and operation(**{name: needed[name] for name in operation.__annotations__ if name in needed})
        arrays = self.arrays(1, place) if operation in (None, Start) else {}
        for who in (Caller.PUBLIC, Caller.OPERATOR):
            answer = self.ask(made, asked, arrays, who).get()
            if who is Caller.OPERATOR and operation in (Drain, Status):
                assert isinstance(answer, dict)
            else:
                assert isinstance(answer, InvalidRequest) and "only models of this server" in str(answer)
        assert made.lives.draining is (operation is Drain) and self.in_flight(made) == 1

    def test_a_job_that_cannot_be_drawn_gives_its_place_back(self, service):
        made = service(Denoiser())
        place = self.admit(made)
        arrays = self.arrays(1, place)
        del arrays["input_ids"]
        assert isinstance(self.ask(made, arrays=arrays).get(), KeyError)
        assert self.report(self.ask(made, Status()))["leaving"] == 1
        self.ask(made, End(place, "error"))
        while self.in_flight(made):  # as soon as the encoder's thread has let it go
            time.sleep(0.01)

    def test_status_says_that_a_step_is_long_and_that_a_thread_is_gone(self, service):
        made = service(Denoiser(0.4), limited(3, 2))
        assert self.report(self.ask(made, Status())) == {
            "in_flight": 0, "active": 0, "waiting": 0, "decoding": 0, "finishing": 0, "leaving": 0, "draining": False,
            "threads_alive": True, "stalled_s": 0.0, "settings": SETTINGS,
        }  # fmt: skip
        reply = self.run(made, 1)
        seen = []
        while (status := self.report(self.ask(made, Status())))["active"] or status["waiting"]:
            seen.append(status["stalled_s"])
            time.sleep(0.02)
        assert max(seen) > 0.2 and min(seen[len(seen) // 4 :]) < 0.2, "it grows within a call and starts again with the next"
        assert isinstance(reply.get(), dict)
        made.threads.stop()
        assert self.report(self.ask(made, Status()))["threads_alive"] is False

    def test_draining_finishes_what_is_in_flight(self, service):
        made = service(Denoiser(0.01))
        running = self.run(made, 1)
        assert self.report(self.ask(made, Drain()))["in_flight"] == 1
        assert isinstance(self.ask(made, Admit()).get(), Busy)
        assert isinstance(running.get(), dict)
        assert self.report(self.ask(made, Drain(on=False)))["draining"] is False
        assert isinstance(self.run(made, 2).get(), dict)
