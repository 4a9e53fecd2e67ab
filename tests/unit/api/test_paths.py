"""Names in paths are judged before anything else, where a collection is known to hold names."""

import pytest

from visp.api.paths import check_names, decode_segment
from visp.errors import BadName

NS = "/api/v1/namespaces/"
ID = "0" * 32


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", NS),
        ("GET", NS + "_"),
        ("GET", NS + "$"),
        ("GET", NS + "$/nothing/x"),
        ("GET", NS + "_/nothing/$"),
        ("GET", NS + "_/actions"),
        ("GET", NS + "_/actions/"),
        ("GET", NS + "_/actions/a%20b"),
        ("PUT", NS + "%5F/actions/a/b"),
        ("GET", NS + "_/actions/a/"),
        ("GET", NS + "_/actions/a/b/$"),
        ("GET", NS + "_/triggers/a/$"),
        ("PATCH", NS + "_/actions/$"),
        ("HEAD", NS + "_/triggers/$"),
        ("GET", NS + f"_/activations/{ID}/anything"),
        ("DELETE", NS + "_/activations/abc"),
        ("PUT", NS + "_/limits/x"),
        ("GET", NS + "_/limits/"),
        ("GET", "/api/v1/$"),
        ("GET", "/$"),
    ],
)
def test_paths_without_a_bad_name(method: str, path: str) -> None:
    check_names(method, path)


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "_/actions/$", "The name of the entity contains illegal characters."),
        ("PUT", "_/actions/a/$", "The name of the entity contains illegal characters."),
        ("POST", "_/actions/$/b/c", "The name of the entity contains illegal characters."),
        ("DELETE", "_/triggers/$/b", "The name of the entity contains illegal characters."),
        ("GET", "_/rules/a%2Fb", "The name of the entity contains illegal characters."),
        ("GET", "_/packages/%FF", "The name of the entity contains illegal characters."),
        ("PATCH", "$/actions", "The namespace contains illegal characters."),
        ("HEAD", "a%2Fb/limits", "The namespace contains illegal characters."),
        ("GET", "_/activations/abc/logs", "Activation id length is 3 but must be 32."),
        ("GET", "nosuch/limits/x/y", "Inner entity level routes for limits are not yet implemented."),
    ],
)
def test_paths_with_a_bad_name(method: str, path: str, sentence: str) -> None:
    with pytest.raises(BadName) as raised:
        check_names(method, NS + path)
    assert raised.value.sentence == sentence


def test_an_encoded_slash_stays_inside_of_its_segment() -> None:
    assert decode_segment("a%2Fb%20c") == "a/b c"
    assert decode_segment("%ff") == "\udcff"
