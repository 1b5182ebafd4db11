"""An order goes to one server."""

import socket

import pytest

from server.direct import AddressError, Connection, check_one_server

IPV4, IPV6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def resolved(monkeypatch):
    def names(*found):
        told = [(family, socket.SOCK_STREAM, 6, "", (address, 8001)) for family, address in found]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told)

    return names


@pytest.mark.parametrize("url", ["faceclip:8001", "grpcs://faceclip:8001"])
def test_a_name_of_several_servers_is_refused_with_their_addresses(resolved, url):
    resolved((IPV4, "10.0.0.2"), (IPV4, "10.0.0.1"))
    with pytest.raises(AddressError, match=r"'faceclip', a name of 10\.0\.0\.1, 10\.0\.0\.2; name each by its address"):
        check_one_server(Connection(url))


@pytest.mark.parametrize("found", [[(IPV4, "127.0.0.1"), (IPV6, "::1")], [(IPV4, "10.0.0.1")] * 2, [(IPV6, "::1")]])
def test_a_server_may_have_an_address_of_each_kind(resolved, found):
    resolved(*found)
    check_one_server(Connection("faceclip:8001"))


def test_who_has_no_address_is_left_to_the_call(monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    check_one_server(Connection("nobody:8001"))


def test_the_address_of_this_machine_is_one():
    for url in ("127.0.0.1:8001", "[::1]:8001", "localhost:8001"):
        check_one_server(Connection(url))
