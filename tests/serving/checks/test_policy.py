"""A policy's file is checked to the last key, and what it leaves out is as in the package's own."""

import re

import pytest

from faceclip_serving.checks.checks import Checks
from faceclip_serving.checks.lexicon import lexicon
from faceclip_serving.checks.policy import (
    ALLOW,
    DEFAULT,
    PHOTOGRAPHS,
    PICTURES,
    PROMPT,
    REFUSE,
    REVIEW,
    PolicyError,
    Thresholds,
    read,
)


def write(folder, text):
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_packages_own_policy_refuses_what_it_must():
    policy = read()
    refused = {(rule.code, rule.concepts) for rule in policy.rules if rule.action == REFUSE}
    for concept in ("nudity", "sexual", "suggestive", "violence"):
        assert ("minor" if concept != "violence" else "violence", frozenset({"minor", concept})) in refused
    assert ("nudity", frozenset({"face", "nudity"})) in refused
    assert (policy.photographs.refuse, policy.pictures.refuse, policy.pictures.review) == (0.8, 0.8, 0.5)
    assert policy.names is policy.faces is None and policy.hooks == () and policy.most_preview_cells == 16


def test_a_copy_of_it_is_the_same_policy(tmp_path):
    copy, own = read(write(tmp_path, DEFAULT.read_text(encoding="utf-8"))), read()
    assert copy.rules == own.rules and copy.pictures == own.pictures and copy.digest != own.digest


def test_what_a_file_leaves_out_is_as_in_the_packages_own(tmp_path):
    policy = read(write(tmp_path, "[pictures]\nrefuse = 0.9\n"))
    assert policy.pictures == Thresholds(0.9, 0.5) and policy.photographs == read().photographs and policy.rules == read().rules


def test_the_lexicon_is_made_where_prompts_are_checked_and_at_the_start():
    """In the other processes of a server it would be most of what the policy costs."""
    lexicon.cache_clear()
    Checks(read(), [PHOTOGRAPHS, PICTURES])
    assert lexicon.cache_info().currsize == 0
    Checks(read(), [PROMPT])
    assert lexicon.cache_info().currsize == 1


def test_thresholds_are_met_from_their_value_on():
    both = Thresholds(0.8, 0.5)
    assert [both.action(score) for score in (0.0, 0.49, 0.5, 0.79, 0.8, 1.0)] == [ALLOW, ALLOW, REVIEW, REVIEW, REFUSE, REFUSE]
    assert Thresholds(None, 0.5).action(1.0) == REVIEW and not Thresholds(None, None) and Thresholds(None, 0.0)


def test_previews_are_whole_only_where_no_picture_is_ever_refused(tmp_path):
    off = "[pictures]\nrefuse = false\n"
    assert read(write(tmp_path, off)).most_preview_cells == 0
    hook = '[[hooks]]\nname = "mine"\non = ["pictures"]\nurl = "http://127.0.0.1:1/"\n'
    policy = read(write(tmp_path, off + hook))
    assert policy.most_preview_cells == 16 and [hook.name for hook in policy.hooks_on(PICTURES)] == ["mine"]


def test_paths_are_from_the_policys_folder(tmp_path):
    (tmp_path / "names.txt").write_text("Nobody\n")
    assert read(write(tmp_path, '[listed]\nnames = "names.txt"\n')).names == tmp_path / "names.txt"


HOOK = '[[hooks]]\nname = "mine"\non = ["prompt"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prompts]\n", "'prompts' is not known; did you mean 'prompt'?"),
        ("[pictures]\nrefuze = 0.7\n", "[pictures]: 'refuze' is not known; did you mean 'refuse'?"),
        ("[pictures]\nrefuse = '0.7'\n", "[pictures] refuse: expected a number from 0.0 to 1.0, found '0.7'"),
        ("[pictures]\nrefuse = 1.5\n", "[pictures] refuse: expected a number from 0.0 to 1.0, found 1.5"),
        ("[pictures]\nrefuse = true\n", "[pictures] refuse: expected a number from 0.0 to 1.0, found True"),
        ("[pictures]\nrefuse = nan\n", "[pictures] refuse: expected a number from 0.0 to 1.0, found nan"),
        ("[pictures]\nrefuse = 0.4\n", "[pictures] review: expected at most refuse, 0.4, found 0.5"),
        ("[pictures]\npreview_cells = 1.5\n", "preview_cells: expected a whole number from 0 to 1024, found 1.5"),
        ("pictures = 1\n", "pictures: expected a table, [pictures], found 1"),
        ("[prompt]\nrules = 1\n", "[prompt] rules: expected a list of tables, found 1"),
        ("[prompt]\nrules = [1]\n", "[prompt] rules: expected a list of tables, found [1]"),
        ("[prompt]\nrules = [{code = 'x', concepts = ['nudity']}]\n", "rules[0]: 'action' is missing; it has code, concepts, action"),
        ("[prompt]\nrules = [{code = 'x', concepts = ['nuditi'], action = 'refuse'}]\n", "found 'nuditi'; did you mean 'nudity'?"),
        ("[prompt]\nrules = [{code = 'x', concepts = [], action = 'refuse'}]\n", "concepts: expected a list of at least one, found []"),
        ("[prompt]\nrules = [{code = 'x', concepts = ['nudity'], action = 'refuze'}]\n", "found 'refuze'; did you mean 'refuse'?"),
        ("[prompt]\nrules = [{code = 'A b', concepts = ['nudity'], action = 'refuse'}]\n", "code: expected small letters"),
        ("[listed]\nnames = 'none.txt'\n", "[listed] names: expected a file, "),
        ("[listed]\nnames = 3\n", "[listed] names: expected a text, found 3"),
        ("[listed]\nfaces = '.'\n", "[listed] recogniser: faces need one; `python -m export recogniser --to FILE` fetches it"),
        (HOOK, "hooks[0]: expected either 'call', a Python function, or 'url', a service"),
        (HOOK + "url = 'ftp://x/'\n", "hooks[0]: url: expected one such as http://127.0.0.1:9000/check, found 'ftp://x/'"),
        (HOOK + "url = 'http://x/'\ntimeout_s = 0\n", "hooks[0]: timeout_s: expected a number from 0.01 to 60.0, found 0"),
        (HOOK + "url = 'http://x/'\nretry = 1\n", "hooks[0]: 'retry' is not known; known are name, on, call, url, timeout_s"),
        (HOOK + "url = 'http://x/'\n" + HOOK + "url = 'http://x/'\n", "hooks: two are called 'mine'"),
        ("[[hooks]]\nname = 'mine'\non = ['promt']\nurl = 'http://x/'\n", "found 'promt'; did you mean 'prompt'?"),
        ("[pictures\n", "expected TOML, found text that is not"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_words(tmp_path, text, message):
    with pytest.raises(PolicyError, match=re.escape(message)) as raised:
        read(write(tmp_path, text))
    assert str(raised.value).startswith(f"policy {tmp_path}")


def test_a_file_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(PolicyError, match=r"expected a file of a policy, .* cannot be read"):
        read(tmp_path / "none.toml")
    (tmp_path / "policy.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="expected TOML"):
        read(tmp_path / "policy.toml")
