"""Preparation of tensorflow-datasets builders, without output and with an early network check."""

import io
import logging
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

SECONDS_TO_REACH = 10


def url_info(size: int, checksum: str, filename: str) -> UrlInfo:
    """Return the size in bytes, the sha256 and the name of a published file."""
    return UrlInfo(size=tfds.core.utils.Size(size), checksum=checksum, filename=filename)


def info_of(
    builder: tfds.core.DatasetBuilder, description: str, homepage: str = "", **features: Any
) -> tfds.core.DatasetInfo:
    """Return the description of a dataset whose examples keep their order."""
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        homepage=homepage,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
    )


def prepared(
    make: Callable[..., tfds.core.DatasetBuilder], *arguments: Any, **options: Any
) -> tfds.core.DatasetBuilder:
    """Return the builder `make(*arguments, **options)` with its data on disk, see `prepare`."""
    with quiet():
        builder = make(*arguments, **options)
    prepare(builder)
    return builder


def examples_of(builder: tfds.core.DatasetBuilder, split: str, **options: Any) -> tf.data.Dataset:
    """Return the examples of a split, see `DatasetBuilder.as_dataset`, without a cache."""
    with quiet():
        config = tfds.ReadConfig(try_autocache=False)
        return builder.as_dataset(split=split, read_config=config, **options)


def prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Prepare the builder's data on disk unless it is already prepared.

    Raises:
        ConnectionError: The data must be downloaded and the source is unreachable.
            tensorflow-datasets would retry for minutes before it reports this.
        ValueError: The checksum of a file differs from the published one.
    """
    with quiet():
        if not builder.is_prepared():
            _require_source(builder)
            # Another process may finish first; its data are the same.
            with suppress(FileExistsError), _wrong_file(builder):
                builder.download_and_prepare()
        if not builder.info.splits:
            builder.info.read_from_directory(builder.data_path)


def _require_source(builder: tfds.core.DatasetBuilder) -> None:
    # From data_dir to data_path, the folders are dataset/[config/]version.
    data_dir = Path(builder.data_path).parents[2 if builder.builder_config else 1]
    downloads = data_dir / "downloads"
    for url, url_info in (builder.url_infos or {}).items():
        in_place = downloads / "manual" / str(url_info.filename)
        cached = any((downloads / builder.name).rglob("*.INFO"))
        if not (in_place.exists() or cached):
            _reach(url, builder, in_place)


def _reach(url: str, builder: tfds.core.DatasetBuilder, in_place: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS_TO_REACH):
            return
    except OSError as error:
        raise ConnectionError(
            f"The data of {builder.name!r} is not prepared in {builder.data_path}, and its "
            f"source cannot be reached: {error}. Without a network, pass a `data_dir` that "
            f"contains the prepared data, or copy the file to {in_place}. "
            f"Received: url={url}"
        ) from error


@contextmanager
def _wrong_file(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    try:
        yield
    except NonMatchingChecksumError as error:
        raise ValueError(
            f"A file of {builder.name!r} differs from the published one in size or sha256. "
            f"Remove it, so that it is downloaded again. Received: {error}"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the progress bars, prints and irrelevant warnings of tensorflow-datasets.

    For example, it warns that data are not prepared when a program checks whether they are.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logger.setLevel(level)
