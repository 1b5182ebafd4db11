"""Which prompts are translated, by whom, and what a call tells of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from faceclip import FaceCLIPPipeline, InvalidRequestError, Person
from faceclip.language import translate, translators
from faceclip.language.service import over_http
from faceclip.language.translator import TranslationError
from faceclip.language.translators import ENVIRONMENT_VARIABLE


class _Service(BaseHTTPRequestHandler):
    answer: bytes = b""
    status = 200
    asked: list[Any] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        if self.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[tuple[str, type[_Service]]]:
    handler = type("Service", (_Service,), {"asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/translate", handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_translator_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("a cat", "en"),
        ("ein Mädchen", "en"),
        ("女人", "zh"),
        ("女の人", "ja"),
        ("여자", "ko"),
        ("женщина", "ru"),
        ("امرأة", "ar"),
        ("औरत", "hi"),
    ],
)
def test_languages_are_known_by_their_script(prompt: str, language: str) -> None:
    assert translate(prompt, "off").language == language
    assert translate(prompt, "off").prompt == prompt


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("ผู้หญิงในสวน", "th"),
        ("μια γυναίκα στην παραλία", "el"),
        ("אישה", "he"),
        ("կին", "hy"),
        ("ქალი", "ka"),
        ("ሴት", "am"),
        ("মহিলা", "bn"),
        ("ਔਰਤ", "pa"),
        ("સ્ત્રી", "gu"),
        ("ମହିଳା", "or"),
        ("பெண்", "ta"),
        ("స్త్రీ", "te"),
        ("ಮಹಿಳೆ", "kn"),
        ("സ്ത്രീ", "ml"),
        ("කාන්තාවක්", "si"),
        ("ແມ່ຍິງ", "lo"),
        ("བུད་མེད", "bo"),
        ("အမျိုးသမီး", "my"),
        ("ស្ត្រី", "km"),
        ("ᠡᠮᠡᠭᠲᠡᠢ", "mn"),
        ("ᎠᎨᏯ", "und"),
        ("ผู้หญิงในสวน 4K, (HDR:1.2) 😀", "th"),
    ],
)
def test_other_scripts_than_the_latin_are_told_and_offered_to_plug_ins(prompt: str, language: str) -> None:
    said = translate(prompt)
    assert (said.prompt, said.language, said.translated) == (prompt, language, False)
    assert f"no translator for '{language}' is installed" in said.warnings[0]
    done = translate(prompt, translator=lambda text, code: (f"{code} in English", ()))
    assert (done.prompt, done.translated) == (f"{language} in English", True)


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("a fraternity house with ΑΒΓ on its door", "en"),
        ("a scientist with α and Ω on a blackboard", "en"),
        ("élève, Łódź, Việt Nam, ß", "en"),
        ("ａ ｗｏｍａｎ", "en"),
        ("𝐚 𝓌𝑜𝓂𝒶𝓃", "en"),
        ("(1.2) 42 … — ٣ ๓ 😀 ♥ ☕", "en"),
        ("", "en"),
        ("ｵﾝﾅ", "ja"),
        ("a woman, 海边, best quality", "zh"),
        ("𠮷", "zh"),
    ],
)
def test_what_is_no_letter_and_a_letter_here_and_there_make_no_language(prompt: str, language: str) -> None:
    assert translate(prompt, "off").language == language


def test_english_is_told_where_it_is_none_and_off_says_nothing() -> None:
    said = translate("女人", "en")
    assert (said.prompt, said.translated) == ("女人", False)
    assert "another script" in said.warnings[0]
    assert translate("女人", "off").warnings == ()
    assert translate("a cat").warnings == ()


def test_another_choice_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match="prompt_language: expected one of auto, en, off, got 'zh'"):
        translate("女人", "zh")


def test_a_language_without_translator_is_used_as_it_is() -> None:
    done = translate("женщина")
    assert (done.prompt, done.translated) == ("женщина", False)
    assert "no translator for 'ru' is installed" in done.warnings[0]


def test_missing_packages_name_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    import faceclip.language.chinese as chinese

    def missing(prompt: str) -> Any:
        raise ModuleNotFoundError("No module named 'jieba'")

    monkeypatch.setattr(chinese, "translate", missing)
    done = translate("女人")
    assert done.prompt == "女人"
    assert "pip install 'faceclip-client[chinese]'" in done.warnings[0]


def test_a_service_is_asked_with_prompt_and_language(
    monkeypatch: pytest.MonkeyPatch, service: tuple[str, type[_Service]]
) -> None:
    url, handler = service
    handler.answer = json.dumps({"prompt": "a woman (smiling:1.2)"}).encode()
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, url)
    done = translate("женщина (улыбка:1.2)")
    assert (done.prompt, done.translated) == ("a woman (smiling:1.2)", True)
    assert handler.asked == [{"prompt": "женщина (улыбка:1.2)", "language": "ru"}]


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (500, b"", "500"),
        (302, b"", "302"),
        (200, b"no json", "expected a text"),
        (200, b"[1]", "expected a text"),
        (200, b'{"prompt": 3}', "expected a text"),
        (200, b'{"prompt": " "}', "got 0"),
        (200, b'{"prompt": "' + b"x" * 20_000 + b'"}', "got 20000"),
        (200, b"x" * 70_000, "at most 65536 bytes"),
    ],
)
def test_a_service_that_fails_leaves_the_original_with_a_warning(
    service: tuple[str, type[_Service]], status: int, answer: bytes, why: str
) -> None:
    url, handler = service
    handler.status, handler.answer = status, answer
    done = translate("女人", translator=over_http(url))
    assert (done.prompt, done.translated) == ("女人", False)
    assert why in done.warnings[0]


def test_a_service_that_is_not_there_or_silent_leaves_the_original() -> None:
    assert "prompt: used as it is" in translate("女人", translator=over_http("http://127.0.0.1:9/", 0.5)).warnings[0]


class _EntryPoint:
    def __init__(self, name: str, function: Any) -> None:
        self.name, self._function = name, function

    def load(self) -> Any:
        return self._function


def test_plug_ins_are_found_by_language_or_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(prompt: str, language: str) -> str:
        raise TranslationError("no idea")

    plugins = [_EntryPoint("ru", lambda prompt, language: f"{language}: woman"), _EntryPoint("own", failing)]
    monkeypatch.setattr(translators.metadata, "entry_points", lambda group: plugins if group == translators.GROUP else [])
    assert translate("женщина").prompt == "ru: woman"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "own")
    assert "no idea" in translate("женщина").warnings[0]
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "other")
    assert "or one of the installed plug-ins (own, ru), got 'other'" in translate("женщина").warnings[0]


def _sent(server: Any, name: str, at: int = -1) -> str:
    found = server.received[at].get(name)
    return "" if found is None else found.item().decode()


def test_a_call_sends_english_and_the_original_and_tells_both(server: Any, pipe: FaceCLIPPipeline) -> None:
    result = pipe("一个女人站在海边", negative_prompt="模糊", seed=1)
    sent = tuple(_sent(server, name) for name in ("prompt", "negative_prompt", "original_prompt"))
    assert sent == ("a woman standing by the sea", "blurry", "一个女人站在海边")
    assert result.details["prompt_language"] == {
        "language": "zh",
        "translated": True,
        "original": "一个女人站在海边",
        "prompt": "a woman standing by the sea",
        "negative_prompt": "blurry",
        "unknown": [],
    }


def test_a_call_without_translation_is_what_it_was(server: Any, pipe: FaceCLIPPipeline) -> None:
    english = pipe("a woman", seed=1)
    off = pipe("女人", seed=1, prompt_language="off")
    assert "prompt_language" not in {**english.details, **off.details}
    sent = [(_sent(server, "prompt", at), _sent(server, "original_prompt", at)) for at in (-2, -1)]
    assert sent == [("a woman", ""), ("女人", "")]
    assert any("another script" in warning for warning in pipe("女人", seed=1, prompt_language="en").warnings)


def test_people_have_prompts_too(server: Any, pipe: FaceCLIPPipeline, photo: bytes) -> None:
    people = [Person(photo, box=(0, 0, 0.5, 1), prompt="穿西装的男人"), Person(photo, box=(0.5, 0, 1, 1), prompt="a woman")]
    pipe("两个朋友", people=people, seed=1)
    assert [each["prompt"] for each in json.loads(_sent(server, "people"))] == ["a man wearing a suit", "a woman"]
    assert _sent(server, "original_prompt") == "两个朋友\n穿西装的男人"
