"""Standardization of columns."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each column.

    Attributes:
        mean: The mean of each column.
        deviation: The standard deviation of each column; 1 for a column of equal values.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def fit(cls, values: np.ndarray) -> "Scaling":
        """Compute the scaling of `values` [rows, columns], ignoring NaN cells.

        Raises:
            ValueError: A column has no finite value.
        """
        if not np.isfinite(values).any(axis=0).all():
            raise ValueError(
                "Every column must have a finite value in the training part. Received: "
                f"{np.isfinite(values).sum(axis=0).tolist()} finite values per column"
            )
        varies = np.nanmax(values, axis=0) > np.nanmin(values, axis=0)
        deviation = np.where(varies, np.nanstd(values, axis=0), 1.0)
        return cls(tuple(np.nanmean(values, axis=0).tolist()), tuple(deviation.tolist()))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Standardize `values`, [..., columns]."""
        return (values - np.array(self.mean)) / np.array(self.deviation)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Convert standardized `values` to the units of the columns, [..., columns]."""
        return values * np.array(self.deviation) + np.array(self.mean)
