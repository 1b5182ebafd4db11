"""What is refused, with which code; what is kept of it, and what is told."""

import numpy as np
import pytest

from faceclip_serving.checks import checks as module
from faceclip_serving.checks.checks import Checks, RefusedBy
from faceclip_serving.checks.explicit import explicit
from faceclip_serving.checks.policy import PICTURES, PROMPT, read
from faceclip_serving.contract.errors import InvalidRequest, Refused, outcome

PICTURE = np.full((64, 48, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def checks():
    return Checks(read())


def scored(monkeypatch, *scores):
    """A classifier that says this."""
    monkeypatch.setattr(module, "explicit", lambda: lambda pictures: list(scores)[: len(pictures)])
    return Checks(read())


@pytest.mark.parametrize(
    ("prompt", "faces", "code"),
    [("a nude woman", 1, "nudity"), ("a child in a bikini", 0, "minor"), ("hardcore porn", 0, "sexual"), ("he was beheaded", 1, "violence"),
     ("a fake passport", 2, "impersonation"), ("a nude child", 1, "minor")],
)  # fmt: skip
def test_a_prompt_is_refused_with_its_code(checks, prompt, faces, code):
    with pytest.raises(RefusedBy, match=rf"^policy\.{code}: the prompt .*; change the prompt; ") as raised:
        checks.prompt(prompt, "", faces)
    assert raised.value.code == f"policy.{code}" and outcome(raised.value) == "refused"
    assert isinstance(raised.value, Refused) and not isinstance(raised.value, InvalidRequest)
    (decision,) = raised.value.decisions
    assert decision.record()["concepts"] and prompt not in str(decision.record()) and "sentence" not in decision.record()


@pytest.mark.parametrize(
    ("prompt", "faces"),
    [(prompt, 0) for prompt in (
        "一位女性交警在街上", "路口交警", "女性爱好者在图书馆", "女性行为艺术家", "叫做爱丽丝的女人", "姜黄片和茶", "NBA片段",
        "出口交易大厅", "an athlete at the XXX Olympiad")]
    + [(prompt, 1) for prompt in (
        "portrait in the style of David Lynch", "portrait of Gore Vidal", "a woman wearing nothing fancy",
        "una mujer despidiéndose en la estación", "retrato de un hombre pelado", "林阴道", "a runner with a pedometer",
        "un tableau pendu à un clou", "un chevalier avec un poignard", "शवासन करती योग शिक्षिका", "Алексей Пенисов у доски")],
)  # fmt: skip
def test_a_word_within_another_is_not_meant(checks, prompt, faces):
    assert [decision.action for decision in checks.prompt(prompt, "", faces)] == ["allow"]


@pytest.mark.parametrize(
    ("prompt", "code"),
    [("a teenager in a sports bra", "minor"), ("a child in a training bra", "minor"), ("a child, bikini bottom", "minor"),
     ("脱衣舞会", "nudity"), ("男女性交", "nudity"), ("和女性做爱", "nudity"), ("裸色口红的裸女", "nudity"), ("看a片", "nudity"),
     ("nude lipstick, nude woman", "nudity"), ("naked, visible to the naked eye", "nudity"), ("zwölfjährige in Dessous", "minor"),
     ("फर्श पर लाश", "violence"), ("बारह साल की लड़की ब्रा में", "minor"), ("فتاة عمرها اثنتا عشرة سنة بملابس داخلية", "minor"),
     ("двенадцатилетняя, голая", "minor"), ("homem pelado", "nudity"), ("a lynched man", "violence")],
)  # fmt: skip
def test_a_harmless_phrase_exempts_no_more_than_itself(checks, prompt, code):
    with pytest.raises(RefusedBy, match=rf"^policy\.{code}: "):
        checks.prompt(prompt, "", 1)


def test_without_a_face_nudity_is_reviewed(checks):
    (decision,) = checks.prompt("a nude marble statue", "", 0)
    assert (decision.action, decision.code, decision.concepts) == ("review", "nudity", ("nudity",))


def test_a_negative_prompt_may_name_what_it_does_not_want(checks):
    (decision,) = checks.prompt("a woman in a garden", "nude, nsfw, child, gore, (worst quality:1.4)", 1)
    assert (decision.action, decision.concepts) == ("allow", ())


@pytest.mark.parametrize("negative", ["clothes", "blurry, (clothes:1.3)", "blurry; [[Clothing]]", "模糊，衣服", "ropa"])
def test_a_negative_prompt_that_wants_no_clothes_asks_for_nudity(checks, negative):
    with pytest.raises(RefusedBy, match=r"^policy\.nudity: "):
        checks.prompt("a woman in a garden", negative, 1)


def test_names_that_are_listed(tmp_path):
    (tmp_path / "names.txt").write_text("# nobody\nErika Mustermann\n山田太郎\nÆneas Ötvös\n", encoding="utf-8")
    (tmp_path / "policy.toml").write_text('[listed]\nnames = "names.txt"\n')
    listed = Checks(read(tmp_path / "policy.toml"), [PROMPT])
    for prompt in (
        "Portrait of ERIKA  MUSTERMANN",
        "Erika-Mustermann",
        "Erikа Mustermann",
        "E r i k a Mustermann",
        "山田 太郎の肖像",
        "aeneas, æneas otvos",
    ):
        with pytest.raises(RefusedBy, match=r"^policy\.name_listed: .* leave the name out$"):
            listed.prompt(prompt, "", 0)
    assert [each.action for each in listed.prompt("Erika Musterfrau, nobody, 山田花子", "Erika Mustermann", 0)] == [
        "allow",
        "allow",
    ]


NAMES = "M83\nK3vin Example\nJohn Doe\nHansPeter\nLi Na\nU2\n约翰·多伊\n"


@pytest.mark.parametrize(
    ("prompt", "listed"),
    [("a concert of M83", True), ("K3vin Example", True), ("Kevin Example, smiling", True), ("(John:1.2) (Doe:1.2)", True),
     ("[John:.8] ((Doe: 1.1))", True), ("JohnDoe", True), ("johndoe at work", True), ("John_Doe", True), ("Hans Peter", True),
     ("U2 live", True), ("Li Na", True), ("约翰多伊的肖像", True), ("(约翰:1.2)(多伊:1.2)", True), ("约翰·多伊", True),
     ("Lina in a garden", False), ("u turn", False), ("John and Doe", False), ("83 metres", False), ("Kevin, example", True)],
)  # fmt: skip
def test_names_are_folded_as_texts_are(tmp_path, prompt, listed):
    (tmp_path / "names.txt").write_text(NAMES, encoding="utf-8")
    (tmp_path / "policy.toml").write_text('[listed]\nnames = "names.txt"\n')
    checks = Checks(read(tmp_path / "policy.toml"), [PROMPT])
    if listed:
        with pytest.raises(RefusedBy, match=r"^policy\.name_listed: "):
            checks.prompt(prompt, "", 0)
    else:
        assert [each.action for each in checks.prompt(prompt, "", 0)] == ["allow", "allow"]


@pytest.mark.parametrize(("prompt", "code"), [("(na:1.2)(ked:1.2) woman", "nudity"), ("(14:1.2) year old, nude", "minor"),
                                              ("(age:14), nude", "minor"), ("(裸:1.2)", "nudity"),
                                              ("(乳:1.2)(头:1.1)", "nudity")])  # fmt: skip
def test_weights_of_words_hide_nothing(checks, prompt, code):
    with pytest.raises(RefusedBy, match=rf"^policy\.{code}: "):
        checks.prompt(prompt, "", 1)


@pytest.mark.parametrize(("scores", "action"), [((0.2, 0.49), "allow"), ((0.2, 0.5), "review"), ((0.2, 0.79), "review")])
def test_pictures_below_the_threshold_are_delivered(monkeypatch, scores, action):
    decisions = scored(monkeypatch, *scores).pictures([PICTURE, PICTURE])
    assert [each.subject for each in decisions] == ["images[0]", "images[1]"] and decisions[1].action == action
    assert decisions[1].record()["score"] == scores[1]


def test_one_refused_picture_refuses_the_request_and_no_score_is_told(monkeypatch):
    with pytest.raises(RefusedBy, match=r"^policy\.nudity: a picture came out that looks explicit") as raised:
        scored(monkeypatch, 0.1, 0.8765).pictures([PICTURE, PICTURE])
    assert "0.8" not in str(raised.value) and [each.score for each in raised.value.decisions] == [0.1, 0.8765]


def test_a_refused_photograph_is_named(monkeypatch):
    with pytest.raises(RefusedBy, match=r"^policy\.nudity: face_images\[1\] looks explicit; send another photograph$"):
        scored(monkeypatch, 0.1, 0.9).photographs([PICTURE, PICTURE], [])


def test_the_classifier_itself_finds_harmless_pictures_harmless():
    one, other = explicit()([PICTURE, np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)])
    assert 0 <= one < 0.2 and 0 <= other < 0.2 and explicit()([PICTURE])[0] == pytest.approx(one, abs=1e-4)


def test_what_is_off_is_not_loaded_and_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "explicit", lambda: pytest.fail("loaded"))
    (tmp_path / "policy.toml").write_text(
        "[prompt]\nrules = []\n[pictures]\nrefuse = false\nreview = false\n[photographs]\nrefuse = false\nreview = false\n"
    )
    off = Checks(read(tmp_path / "policy.toml"))
    assert off.prompt("a nude woman", "", 1) == off.pictures([PICTURE]) == off.photographs([PICTURE], []) == []
    assert off.policy.told()["on"] == [] and off.policy.told()["off"] == ["prompt", "photographs", "pictures", "names", "faces"]
    assert read().told()["on"] == ["prompt", "photographs", "pictures"]


def test_a_process_asks_only_the_hooks_of_its_stages(tmp_path):
    (tmp_path / "policy.toml").write_text('[[hooks]]\nname = "mine"\non = ["prompt"]\nurl = "http://127.0.0.1:1/"\n')
    policy = read(tmp_path / "policy.toml")
    assert Checks(policy, [PROMPT]).asks_others and not Checks(policy, [PICTURES]).asks_others
    Checks(policy, [PICTURES]).pictures([PICTURE])
