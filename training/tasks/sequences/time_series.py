"""tensorflow-datasets builder of single long time series."""

import csv
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from gradkeeper.training.tasks.prepare import info_of, url_info

_FOLDER = "https://raw.githubusercontent.com/statsmodels/statsmodels/v0.14.4/statsmodels/datasets/"
_MONTHS = 12


@dataclasses.dataclass(eq=False, kw_only=True)
class TimeSeriesConfig(tfds.core.BuilderConfig):
    """Configuration of one series.

    Attributes:
        url: Address of the file.
        url_info: Size and sha256 of the file.
        read: Function that parses the file's text into values; NaN for a missing value.
    """

    url: str
    url_info: UrlInfo
    read: Callable[[str], list[float]]


def read_csv(text: str) -> list[float]:
    """Parse the second column of a CSV text, without the header."""
    rows = list(csv.reader(text.splitlines()))[1:]
    return [float(row[1]) if row[1].strip() else np.nan for row in rows]


def read_monthly(text: str) -> list[float]:
    """Parse a table with a year per row and a month per column; the last row may be short."""
    rows = [line.split() for line in text.splitlines()]
    years = [row[1:] for row in rows if row and row[0].isdigit() and 1 < len(row) <= 1 + _MONTHS]
    return [float(value) for year in years for value in year]


def _config(
    name: str, path: str, size: int, checksum: str, read: Callable[[str], list[float]]
) -> TimeSeriesConfig:
    info = url_info(size, checksum, path.rpartition("/")[2])
    return TimeSeriesConfig(name=name, url=_FOLDER + path, url_info=info, read=read)


class TimeSeriesBuilder(tfds.core.GeneratorBasedBuilder):
    """Sunspot numbers and carbon dioxide, from statsmodels; in the public domain.

    "sunspots_monthly": mean sunspot numbers, January 1749 to June 2009. "sunspots_yearly":
    1700 to 2008. "co2_weekly": carbon dioxide in the air over Mauna Loa in parts per million,
    March 1958 to December 2001, 59 weeks of which are missing.

    Features: "values", float64 [time], in one example of the split "train".
    """

    name = "gradkeeper_time_series"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[TimeSeriesConfig]] = [
        _config(
            "sunspots_monthly",
            "sunspots/src/sunspots_monthly.dat",
            21_194,
            "cc303d26340b6d599bc2878899f8c50c12323dc04b52a26ad047965ea2b9d2a3",
            read_monthly,
        ),
        _config(
            "sunspots_yearly",
            "sunspots/sunspots.csv",
            2_944,
            "f67889b1d9002cd5227f0e0ef54e35b419cdd85a31279adef6f73fb41e5c0a9b",
            read_csv,
        ),
        _config(
            "co2_weekly",
            "co2/co2.csv",
            33_974,
            "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f",
            read_csv,
        ),
    ]
    builder_config: TimeSeriesConfig

    @property
    def url_infos(self) -> dict[str, UrlInfo]:
        """File of this series."""
        return {self.builder_config.url: self.builder_config.url_info}

    def _info(self) -> tfds.core.DatasetInfo:
        values = tfds.features.Tensor(shape=(None,), dtype=np.float64, encoding="bytes")
        homepage = "https://www.statsmodels.org/stable/datasets/index.html"
        return info_of(
            self, f"The time series {self.builder_config.name}.", homepage, values=values
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        file = Path(dl_manager.download(self.builder_config.url))
        return {tfds.Split.TRAIN: self._generate_examples(file)}

    def _generate_examples(self, file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        values = self.builder_config.read(file.read_text(encoding="utf-8"))
        yield 0, {"values": np.array(values, np.float64)}
