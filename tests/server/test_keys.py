"""What an operator is known by, on the same machine and elsewhere."""

import os
import stat

import pytest

from faceclip_serving.contract.callers import OPERATOR_KEY_VARIABLE, Caller, caller
from server.direct import AddressError, Connection
from server.keys import Keys, operator_parameters, remember


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    monkeypatch.delenv(OPERATOR_KEY_VARIABLE, raising=False)
    return tmp_path


def test_a_key_is_found_by_its_address_on_this_machine_alone():
    keys = Keys()
    path = remember(8001, keys.operator, "0.0.0.0")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for target in ("localhost:8001", "127.0.0.1:8001", "127.0.0.2:8001"):
        assert caller(operator_parameters(target), keys.environment) is Caller.OPERATOR
    for target in (
        "localhost:8002",
        "example.org:8001",
        "localhost.example.org:8001",
        "127.example.org:8001",
        "192.0.2.1:8001",
        "localhost",
        "",
    ):
        assert operator_parameters(target) == {}, target


def test_servers_on_one_port_of_two_addresses_have_keys_of_their_own():
    one, other = Keys(), Keys()
    remember(8001, one.operator, "127.0.0.1")
    remember(8001, other.operator, "127.0.0.2")
    for target, keys in (("localhost:8001", one), ("127.0.0.1:8001", one), ("127.0.0.2:8001", other)):
        assert caller(operator_parameters(target), keys.environment) is Caller.OPERATOR


def test_of_a_server_that_was_killed_the_key_hides_no_other():
    killed, running = Keys(), Keys()
    old = remember(8001, killed.operator, "127.0.0.1")
    os.utime(old, (1, 1))
    remember(8001, running.operator, "0.0.0.0")
    assert caller(operator_parameters("localhost:8001"), running.environment) is Caller.OPERATOR


def test_a_login_finds_the_key_of_a_service_without_a_runtime_folder(own_folder, monkeypatch):
    keys = Keys()
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    remember(8001, keys.operator)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own_folder))
    assert caller(operator_parameters("localhost:8001"), keys.environment) is Caller.OPERATOR


def test_the_environment_goes_before_and_reaches_other_machines(monkeypatch):
    remember(8001, "older")
    monkeypatch.setenv(OPERATOR_KEY_VARIABLE, "k" * 20)
    for target in ("localhost:8001", "example.org:8001"):
        assert caller(operator_parameters(target), Keys().environment) is Caller.OPERATOR


def test_keys_are_new_each_time_and_are_not_shown():
    one, other = Keys(), Keys()
    assert (
        len({one.secret, one.operator, other.secret, other.operator}) == 4 and min(map(len, (one.secret, one.operator))) >= 32
    )
    assert one.secret not in repr(one) and one.operator not in repr(one)


def test_a_server_that_starts_anew_on_a_port_replaces_the_key():
    remember(8001, "old")
    assert remember(8001, "new").read_text() == "new"


@pytest.mark.parametrize("made", ["open to others", "a link", "a file"])
def test_a_folder_that_others_could_have_made_is_neither_written_nor_read(own_folder, made):
    folder = own_folder / f"faceclip-keys-{os.getuid()}"
    elsewhere = own_folder / "theirs"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "127.0.0.1-8001").write_text("theirs")
    if made == "open to others":
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "127.0.0.1-8001").write_text("theirs")
    elif made == "a link":
        folder.symlink_to(elsewhere)
    else:
        folder.write_text("x")
    assert remember(8001, "key") is None and operator_parameters("localhost:8001") == {}


def test_addresses():
    assert (Connection("a:1").target, Connection("a:1").tls) == ("a:1", False)
    assert (Connection("grpcs://a:1").target, Connection("grpcs://a:1").tls) == ("a:1", True)
    assert Connection("grpc://a:1").target == "a:1"
    with pytest.raises(AddressError, match=r"url: expected host:port, or grpcs"):
        Connection("https://a:1")


def test_certificates_without_tls_and_files_that_are_missing_are_told(tmp_path):
    with pytest.raises(AddressError, match=r"--ca: TLS alone has certificates; write the address as grpcs://a:1"):
        Connection("a:1", root_certificates=tmp_path)
    with pytest.raises(AddressError, match=r"--cert: .*no such file"):
        Connection("grpcs://a:1", certificate=tmp_path / "none")
