from __future__ import annotations

import pytest

from koda_audit.data.address import check_address, check_plain
from koda_audit.errors import InputError
from koda_audit.suite.names import with_variables


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8000/w",
        "https://huggingface.co/datasets/clip-benchmark/wds_cifar10/tree/main",
        "https://user:token@example.org/a%20b/c+d=e,f?x=1&y=%2f",
        "http://[::1]:80/w",
    ],
)
def test_an_address_passes(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "http://a/b';touch x;'",
            "http://a/$(touch x)",
            "http://a/`x`",
            "http://a/b c",
            "http://a/b\nc",
            "http://a/b|c",
        ),
        *("file:///etc/passwd", "pipe:cat x://", "ftp://a/b", "http:///b", "http://", "https://a/ü", "http://[a/b"),
    ],
)
def test_what_is_more_than_an_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="is no plain address: expected http://"):
        check_address(address)


@pytest.mark.parametrize("path", ["/data/coco", "data/my coco-2014", "~/x", "root", "", "/däta/a=b,c+d@e%"])
def test_a_path_passes(path: str) -> None:
    check_plain("the root", path)


@pytest.mark.parametrize(
    "path",
    [*(f"data{mark}x" for mark in ";&|<>$`'\"\\()*?[]{}!#\n\r\x1b"), "-x", "a -x", "a\t--use-askpass=x"],
)
def test_a_path_that_a_shell_obeys_is_refused(path: str) -> None:
    with pytest.raises(InputError, match=r"the root '(.|\s)*clip_benchmark hands it to a shell"):
        check_plain("the root", path)


def test_an_address_takes_no_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A suite of somebody else's would send it there."""
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("SCHEME", "http")
    assert with_variables("data/${TOKEN}") == "data/secret"
    for address in ("http://127.0.0.1/${TOKEN}/x", "${SCHEME}://127.0.0.1/x"):
        with pytest.raises(InputError, match="is an address, which takes no environment variable") as error:
            with_variables(address)
        assert "secret" not in str(error.value)
