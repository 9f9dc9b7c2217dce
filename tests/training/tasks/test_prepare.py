"""Preparation of published data: checksums and unreachable sources."""

import hashlib
import urllib.request

import pytest

from gradkeeper.training import load_task
from gradkeeper.training.tasks.sequences.jsb_chorales import JsbChoralesBuilder


def test_file_with_another_checksum_is_refused(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "jsb-chorales-quarter.json").write_text("{}")
    received = hashlib.sha256(b"{}").hexdigest()
    with pytest.raises(
        ValueError, match=rf"differs from the published one.*Received:(.|\n)*{received}"
    ):
        load_task("jsb_chorales", data_dir=tmp_path)
    assert not list((tmp_path / JsbChoralesBuilder.name).rglob("*.tfrecord*"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("jsb_chorales", "jsb-chorales-quarter.json"),
        ("japanese_vowels", "JapaneseVowels_TRAIN.ts"),
        ("sunspots", "sunspots_monthly.dat"),
        ("co2", "co2.csv"),
        ("sequential_mnist", r".*\.gz"),
        ("tiny_shakespeare", r"input\.txt"),
    ],
)
def test_unreachable_data_raise_an_error_at_once(name, file, tmp_path, monkeypatch):
    def unreachable(url, timeout):
        raise urllib.request.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(ConnectionError, match=rf"no route to host.*downloads/manual/{file}"):
        load_task(name, data_dir=tmp_path)
