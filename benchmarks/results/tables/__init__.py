"""One module per table, named after the table; it defines `TABLE`."""
