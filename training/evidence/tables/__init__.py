"""A module for each table, of the table's name; it holds `TABLE`."""
