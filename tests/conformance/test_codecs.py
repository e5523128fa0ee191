"""The codecs against messages as sr3 3.03.01 published them, and against sr3's own decoder.

`tests/fixtures/sr3` holds, for each case in `INDEX.json`, what sr3 put on the wire and what its consumer made
of it. Where this decoder differs from sr3's, `DIFFERENCES` says how and which fact of wire.md is the reason.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sarrapipe.message import topics
from sarrapipe.message.codec import CONTENT_TYPES, decode, encode
from sarrapipe.message.fields import is_local
from sarrapipe.message.model import Message
from sarrapipe.message.safety import check

FIXTURES = Path(__file__).parents[1] / "fixtures" / "sr3"
INDEX = json.loads((FIXTURES / "INDEX.json").read_text("utf-8"))
UNPUBLISHED = {"v02_exchange_split_utf8", "v03_exchange_split_utf8"}  # sr3 raised (wire.md 4, Split)
CASES = {
    entry["file"].removesuffix(".json"): json.loads((FIXTURES / entry["file"]).read_text("utf-8"))
    for entry in INDEX["fixtures"]
}
NAMES = sorted(CASES.keys() - UNPUBLISHED)
SCHEMES = frozenset({"http"})

View = dict[str, object]


def sr3_view(case: str) -> View:
    """The fields that sr3's consumer has after decoding, without those that stay in its process."""
    view = CASES[case]["sr3_consumer_view"]
    return {name: value for name, value in view.items() if not is_local(name)}


def decoded(case: str) -> Message:
    wire = CASES[case]["wire"]
    content_type = wire["properties"]["content_type"]
    return decode(wire["body"].encode(), wire["headers"], content_type, wire["routing_key"])


# --- where this decoder differs from sr3's, and why ---------------------------------------------------------


def _unwrap_identity(view: View, case: str) -> None:
    """sr3's v02 decoder wraps base64 at 76 columns: strip it (wire.md 1.3)."""
    identity = view.get("identity")
    if isinstance(identity, dict):
        view["identity"] = {**identity, "value": identity["value"].replace("\n", "")}


def _keep_clusters(view: View, case: str) -> None:
    """sr3's v02 decoder always sets `to_clusters: ALL`, over what the source chose (wire.md 1.2; R56)."""
    sent = CASES[case]["wire"]["headers"].get("to_clusters")
    if sent is None:
        del view["to_clusters"]
    else:
        view["to_clusters"] = sent


def _unescape(view: View, case: str) -> None:
    """sr3 does not unescape `%20` and `%23` in relPath of v02 (wire.md 1.5)."""
    view["relPath"] = str(view["relPath"]).replace("%20", " ").replace("%23", "#")


def _read_parts(view: View, case: str) -> None:
    """sr3's v02 decoder drops blocks and their size (wire.md 2.1)."""
    flag, size, count, remainder, number = CASES[case]["wire"]["headers"]["parts"].split(",")
    method = {"i": "inplace", "p": "separate" if "§" in str(view["relPath"]) else "partitioned"}[flag]
    blocks = {"method": method, "size": int(size), "number": int(number), "count": int(count)}
    last = blocks["number"] == blocks["count"] - 1
    # sr3's encoder puts this block's size where the remainder belongs: it is known from the last block only.
    if last:
        blocks["remainder"] = int(remainder) % int(size)
    view["blocks"] = blocks
    view["size"] = int(remainder) if last else int(size)


def _complete_blocks(view: View, case: str) -> None:
    """Both dialects' keys are kept: count and remainder beside the manifest (wire.md 2.2)."""
    blocks = dict(view["blocks"])
    last = blocks["manifest"][str(len(blocks["manifest"]) - 1)]
    blocks["count"] = len(blocks["manifest"])
    blocks["remainder"] = last["size"] % blocks["size"]
    view["blocks"] = blocks


def _drop_identity(view: View, case: str) -> None:
    """A digest of the name, or of a link's target, is no identity of data (wire.md 1.3, 1.5)."""
    assert view.pop("identity")["method"] in {"md5name", "link"}


def differences(case: str) -> list[Callable[[View, str], None]]:
    found: list[Callable[[View, str], None]] = []
    if case.startswith("v02"):
        found += [_unwrap_identity, _keep_clusters]
        if case in {"v02_name_space", "v02_name_odd", "v02_name_utf8"}:
            found.append(_unescape)
        if "blocks" in case and case != "v02_blocks_blocksize_1":
            found.append(_read_parts)
        if case in {"v02_symlink", "v02_rename_link"}:
            found.append(_drop_identity)
    elif "blocks" in case and case != "v03_blocks_blocksize_1":
        found.append(_complete_blocks)
    return found


def expected(case: str) -> View:
    view = sr3_view(case)
    for difference in differences(case):
        difference(view, case)
    return view


# --- the fixtures -------------------------------------------------------------------------------------------


def test_the_index_lists_every_file():
    files = {path.name for path in FIXTURES.glob("*.json")} - {"INDEX.json"}
    assert files == {entry["file"] for entry in INDEX["fixtures"]}
    assert len(NAMES) == 76
    for name in UNPUBLISHED:
        assert CASES[name]["publish_exception"]


@pytest.mark.parametrize("case", NAMES)
def test_decoding_gives_what_sr3s_consumer_sees(case):
    assert decoded(case).to_dict() == expected(case)


def test_every_listed_difference_is_one():
    for case in NAMES:
        for difference in differences(case):
            view = sr3_view(case)
            difference(view, case)
            plain = difference in (_unwrap_identity, _keep_clusters)
            assert plain or view != sr3_view(case), f"{case}: {difference.__name__} changes nothing"


@pytest.mark.parametrize("case", NAMES)
def test_sr3s_messages_are_safe(case):
    check(decoded(case), SCHEMES)


@pytest.mark.parametrize("case", NAMES)
def test_the_topic_is_sr3s_where_that_fits_into_255_bytes(case):
    wire = CASES[case]["wire"]
    prefix = ("v02", "post") if case.startswith("v02") else ("v03",)
    made = topics.topic(prefix, decoded(case).rel_path)
    if wire["routing_key_bytes"] <= 255:
        assert made == wire["routing_key"]
    else:  # sr3 counts characters (wire.md 1.6)
        assert wire["routing_key"].startswith(made)
        assert 253 <= len(made.encode()) <= 255


@pytest.mark.parametrize("case", [name for name in NAMES if name.startswith("v03")])
def test_v03_is_written_with_the_values_of_sr3(case):
    body, headers, content_type = encode(decoded(case), "v03")
    sent = dict(CASES[case]["wire"]["body_json"])
    if _complete_blocks in differences(case):
        _complete_blocks(sent, case)
    assert json.loads(body) == sent
    assert headers == {}
    assert content_type == CASES[case]["wire"]["properties"]["content_type"]


# What sr3's v02 cannot carry, or carries in another way.
V02_REPORT = {"v02_report_201"}  # an AMQP table there, JSON text here as in v2
V02_UNNAMED = {"v02_symlink"}  # the target is lost: what was a link is announced as a file without identity


@pytest.mark.parametrize("case", [name for name in NAMES if name.startswith("v02")])
def test_v02_is_written_with_the_values_of_sr3(case):
    body, headers, content_type = encode(decoded(case), "v02")
    wire = CASES[case]["wire"]
    sent = dict(wire["headers"])
    if case in V02_REPORT:
        sent["report"] = json.dumps(sent["report"], separators=(",", ":"))
    if case in V02_UNNAMED:
        assert str(sent.pop("sum")).startswith("L,")
        assert str(headers.pop("sum")).startswith("n,")
    if case.startswith("v02_blocks") and sent["parts"] == "i,1024,2,1024,1":
        sent["parts"] = "i,1024,2,0,1"  # an exact multiple has no remainder (wire.md 2.1)
    assert headers == sent
    assert body.decode() == wire["body"]
    assert content_type == wire["properties"]["content_type"]


@pytest.mark.parametrize("post_format", ["v02", "v03"])
@pytest.mark.parametrize("case", NAMES)
def test_what_we_write_we_read(case, post_format):
    message = decoded(case)
    again = decode(*encode(message, post_format)).to_dict()
    wanted = message.to_dict()
    if post_format == "v02":
        wanted.pop("content", None)  # the receiver fetches it
        if "blocks" in wanted:
            wanted["blocks"] = {key: value for key, value in wanted["blocks"].items() if key != "manifest"}
        # v02 cannot tell a literal %20 from its own escapes.
        wanted["relPath"] = wanted["relPath"].replace("%20", " ")
    assert again == wanted


# --- the real sr3 -------------------------------------------------------------------------------------------

# Reads JSON lines {body, headers, content_type}; writes what sr3's consumer makes of each.
SR3_DECODER = """
import json, logging, sys
import sarracenia
from sarracenia.postformat import PostFormat
import sarracenia.postformat.v02, sarracenia.postformat.v03
logging.disable(logging.CRITICAL)
for line in sys.stdin:
    sent = json.loads(line)
    view = PostFormat.importAny(sent["body"], sent["headers"], sent["content_type"], {})
    valid = view is not None and bool(view.validate())
    print(json.dumps({"valid": valid, "view": dict(view or {})}, default=list))
"""


def real_sr3_decodes(sr3_home: Path, sent: list[tuple[bytes, dict[str, object], str]]) -> list[View]:
    lines = [
        json.dumps({"body": body.decode(), "headers": headers, "content_type": content_type})
        for body, headers, content_type in sent
    ]
    run = subprocess.run(
        [sr3_home / "python", "-c", SR3_DECODER],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == len(sent), run.stderr
    return answers


@pytest.mark.sr3
@pytest.mark.parametrize("post_format", sorted(CONTENT_TYPES))
def test_the_real_sr3_reads_what_we_write(sr3_home, post_format):
    """Every case, decoded from either dialect and written in `post_format`."""
    answers = real_sr3_decodes(sr3_home, [encode(decoded(case), post_format) for case in NAMES])
    for case, answer in zip(NAMES, answers, strict=True):
        assert answer["valid"], case
        view = {name: value for name, value in answer["view"].items() if not is_local(name)}
        wanted = decoded(case).to_dict()
        if post_format == "v02":
            wanted = _as_sr3_reads_v02(wanted, view)
        assert view == wanted, case


def _as_sr3_reads_v02(wanted: View, view: View) -> View:
    """What sr3's v02 decoder does to any message: `differences` the other way round."""
    wanted = {**wanted, "to_clusters": "ALL"}
    wanted["relPath"] = str(wanted["relPath"]).replace(" ", "%20").replace("#", "%23")
    wanted.pop("content", None)
    if wanted.pop("blocks", None):
        del wanted["size"]
    if "report" in wanted:
        wanted["report"] = json.dumps(wanted["report"], separators=(",", ":"))
    identity = view.get("identity")
    if isinstance(identity, dict) and identity["method"] == "md5name":
        del view["identity"]
    _unwrap_identity(view, "")
    return wanted
