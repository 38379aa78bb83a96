"""Files in a store: whole or not there, and none outside of their folder."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from tests.s3_server import BUCKET, Way, environment
from videorl.errors import ConfigError, RunFolderError, StoreLostError
from videorl.storage.place import Place, below, is_safe, name_of
from videorl.storage.preparing import open_place


def test_files_come_back_as_they_were(uri: str, tmp_path: Path) -> None:
    place, here = open_place(uri), tmp_path / "here"
    place.check_writable()
    assert place.list() == {}
    here.write_bytes(b"x" * 1000)
    for name in ("a b/x=1/ü.bin", "metrics.jsonl"):
        place.upload(here, name)
    assert {name: found.size for name, found in place.list().items()} == {
        "a b/x=1/ü.bin": 1000,
        "metrics.jsonl": 1000,
    }
    place.write("metrics.jsonl", b"other")
    place.download("metrics.jsonl", tmp_path / "back/metrics.jsonl")
    assert [path.name for path in (tmp_path / "back").iterdir()] == ["metrics.jsonl"]
    assert (tmp_path / "back/metrics.jsonl").read_bytes() == b"other"
    place.delete("a b/x=1/ü.bin")
    place.delete("a b/x=1/ü.bin")
    assert list(place.list()) == ["metrics.jsonl"]


def test_what_is_appended_during_an_upload_comes_the_next_time(uri: str, tmp_path: Path) -> None:
    place, log = open_place(uri), tmp_path / "log"
    log.write_text("1\n")
    with log.open("a") as file:
        known = place.upload(log, "log")
        file.write("2\n")
    assert known.st_size == 2
    assert place.read("log") == b"1\n"


@pytest.mark.parametrize("name", ["a/../b", "../b", "/b", "a//b", "a\\b", "", ".", "a/."])
def test_names_that_leave_their_folder(name: str) -> None:
    assert not is_safe(name)


def test_a_name_that_climbs_out_is_refused_before_anything_is_fetched() -> None:
    """By fsspec, which opens what pyarrow does not know."""
    files = fsspec.filesystem("memory")
    place = open_place("memory://climbing/first")
    place.write("config.yaml", b"1")
    assert list(place.list()) == ["config.yaml"]
    files.store["/climbing/first/../../evil"] = files.store["/climbing/first/config.yaml"]
    with pytest.raises(RunFolderError, match=r"holds '\.\./\.\./evil', a name that leaves"):
        place.list()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a//b"])
def test_no_name_reaches_beyond_its_place_whoever_says_it(name: str, tmp_path: Path) -> None:
    """Names come from listings, notes and checkpoints, which others may write."""
    place, other = (open_place(f"file://{tmp_path}/store/{run}") for run in ("first", "second"))
    (tmp_path / "store/evil").parent.mkdir()
    (tmp_path / "store/evil").write_text("of somebody else")
    for use in (
        lambda: place.list(name),
        lambda: place.stat(name),
        lambda: place.read(name),
        lambda: place.write(name, b""),
        lambda: place.upload(tmp_path / "store/evil", name),
        lambda: place.download(name, tmp_path / "here"),
        lambda: place.copy(name, other),
        lambda: place.delete(name),
        lambda: place.delete_folder(name),
    ):
        with pytest.raises(RunFolderError, match="the name leaves its folder"):
            use()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert (tmp_path / "store/evil").read_text() == "of somebody else"


@pytest.mark.parametrize("end", ["..", "a/../b", ".", "%2e%2e", "a/%2E%2e/b"])
def test_a_uri_that_climbs_is_refused(end: str, tmp_path: Path) -> None:
    """Its copy would be another folder of this machine."""
    with pytest.raises(ConfigError, match=r"has a part `\.` or `\.\.`"):
        open_place(f"file://{tmp_path}/{end}")


def test_what_somebody_must_mend_is_no_lost_store(
    s3_port: int, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RunFolderError, match=r"cannot use s3://nowhere/run: .*"):
        open_place("s3://nowhere/run").check_writable()
    for name, value in environment(way.port, "reader").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunFolderError, match="ACCESS_DENIED"):
        open_place(f"s3://{BUCKET}/run").check_writable()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RunFolderError, match="SIGNATURE"):
        open_place(f"s3://{BUCKET}/run").check_writable()


@pytest.mark.parametrize(
    ("said", "is_wrong"),
    [
        ("Bucket 'nowhere' not found", True),
        (
            "When listing objects under key 'a' in bucket 'b': AWS Error UNKNOWN (HTTP status 400) "
            "during ListObjectsV2 operation: Unable to parse ExceptionName: ExpiredToken Message: "
            "The provided token has expired.",
            True,
        ),
        (
            "When listing objects under key 'a' in bucket 'b': AWS Error UNKNOWN (HTTP status 301) "
            "during ListObjectsV2 operation: Unable to parse ExceptionName: PermanentRedirect",
            True,
        ),
        ("google::cloud::Status(PERMISSION_DENIED: x does not have storage.objects.list)", True),
        ("google::cloud::Status(UNAUTHENTICATED: Invalid Credentials)", True),
        ("Azure Error: [AuthenticationFailed] 403 Server failed to authenticate the request", True),
        ("Azure Error: [AuthorizationPermissionMismatch] 403 This request is not authorized", True),
        (
            "When listing objects under key 'forbidden/SIGNATURE' in bucket 'access_denied': AWS "
            "Error NETWORK_CONNECTION during ListObjectsV2 operation: curlCode: 7",
            False,
        ),
        ("google::cloud::Status(UNAVAILABLE: Retry policy exhausted)", False),
        ("AWS Error SLOW_DOWN during PutObject operation: Reduce your request rate.", False),
    ],
)
def test_only_what_may_pass_is_waited_for(said: str, is_wrong: bool, tmp_path: Path) -> None:
    """As pyarrow tells it, of stores that are not here; names of buckets and files say nothing."""
    with (
        pytest.raises(RunFolderError if is_wrong else StoreLostError) as caught,
        open_place(f"file://{tmp_path}").reaching(),
    ):
        raise OSError(said)
    assert said in str(caught.value)


def test_what_the_disk_of_this_machine_says_is_not_of_the_store(tmp_path: Path) -> None:
    place = open_place(f"file://{tmp_path}/store", patience_s=1000)
    place.write("a", b"there")
    (tmp_path / "here/a").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        place.download("a", tmp_path / "here/a")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["a"]


@pytest.mark.parametrize("mode", ["busy", "cut"])
def test_a_store_that_does_not_answer_is_lost_and_comes_back(mode: str, way: Way, s3: str) -> None:
    place = open_place(s3)
    place.write("a", b"before")
    way.mode = mode
    way.interrupt()
    with pytest.raises(StoreLostError, match="cannot use s3://"):
        place.write("a", b"after")
    way.mode = "slow"
    way.interrupt()
    assert place.read("a") == b"before"
    place.write("a", b"after")
    assert place.read("a") == b"after"


def test_credentials_in_a_uri_are_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError, match="set them in the environment") as caught:
        Place("s3://name:hidden@bucket/run", "run_dir", RunFolderError)
    assert "hidden" not in str(caught.value)


def test_uris_are_joined_before_their_query() -> None:
    uri = "s3://bucket/run/?endpoint_override=host:1"
    assert below(uri, "checkpoints") == "s3://bucket/run/checkpoints?endpoint_override=host:1"
    assert name_of(uri) == "run"
