"""The adding problem over 200 steps, with every model."""

from results.tables.adding_zoo import table_of

TABLE = table_of(200)
