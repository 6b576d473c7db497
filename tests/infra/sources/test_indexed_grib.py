from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from infra.errors import InvalidFieldError, MissingDataError, TransientSourceError
from infra.retry import RetryPolicy
from infra.sources.indexed_grib import IndexedMessage, Mirrors, merge
from infra.sources.open_data import OpenData
from tests.infra.sources.test_open_data import BEFORE, INIT, REQUEST
from tests.tools.open_data_mirror import write_run

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def messages(lengths: list[int], gaps: list[int]) -> list[IndexedMessage]:
    found, offset = [], 0
    for i, (length, gap) in enumerate(zip(lengths, gaps)):
        offset += gap
        found.append(IndexedMessage(path="a.grib2", offset=offset, length=length, label=f"m{i}"))
        offset += length
    return found


@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from([0, 0, 5])), min_size=1, max_size=20),
    st.integers(50, 200),
)
def test_merging_covers_every_byte_once_and_stays_within_the_limit(
    pieces: list[tuple[int, int]], largest: int
) -> None:
    wanted = messages(*map(list, zip(*pieces)))
    groups = merge(reversed(wanted), largest=largest)
    assert sorted(message for group in groups for message in group) == wanted
    for group in groups:
        ends = [message.offset + message.length for message in group]
        assert [message.offset for message in group[1:]] == ends[:-1]  # end to end: nothing unwanted is read
        assert ends[-1] - group[0].offset <= largest
    for before, after in pairwise(groups):  # and no two groups could be one
        touching = before[-1].offset + before[-1].length == after[0].offset
        assert not touching or after[0].offset + after[0].length - before[0].offset > largest


def test_messages_of_different_files_are_not_merged() -> None:
    first = IndexedMessage(path="a", offset=0, length=5, label="x")
    second = IndexedMessage(path="b", offset=5, length=5, label="y")
    assert merge([first, second]) == [[first], [second]]


@pytest.mark.parametrize(
    ("failures", "raised"),
    [
        ((MissingDataError, MissingDataError), MissingDataError),
        ((MissingDataError, TransientSourceError), TransientSourceError),
        ((InvalidFieldError, MissingDataError), InvalidFieldError),
        ((InvalidFieldError, TransientSourceError), TransientSourceError),
    ],
)
def test_when_all_mirrors_fail_the_most_hopeful_reason_is_raised_with_all_of_them(
    tmp_path, failures: tuple[type[Exception], ...], raised: type[Exception]
) -> None:
    roots = tuple(str(tmp_path / str(i)) for i in range(len(failures)))

    def operation(root: str, remote: object) -> None:
        raise failures[int(root[-1])](f"reason {root[-1]}")

    with pytest.raises(raised, match="all 2 mirrors failed: reason 0; reason 1"):
        Mirrors(roots=roots).first(operation)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """The archive in an S3 bucket of a local server."""
    folder = tmp_path_factory.mktemp("archive")
    for init_time in (BEFORE, INIT):
        write_run(folder, init_time, resolution=10.0, levels=(500, 850))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **credentials)
    client.create_bucket(Bucket="forecasts")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "forecasts", f"mirror/{path.relative_to(folder)}")
    yield {"endpoint_url": endpoint, "key": "test", "secret": "test"}
    client.close()
    server.stop()


def test_a_mirror_in_an_object_store(bucket: dict, tmp_path) -> None:
    source = OpenData(
        roots=("s3://forecasts/mirror",), options=bucket, retry=RetryPolicy(sleep=lambda _: None)
    )
    assert source.available(REQUEST).complete
    files = source.fetch(REQUEST, tmp_path)
    assert len(files) == 8
    assert files[0].url.startswith("s3://forecasts/mirror/20261004/18z/")
    absent = OpenData(roots=("s3://forecasts/nothing",), options=bucket)
    assert not absent.available(REQUEST).complete
