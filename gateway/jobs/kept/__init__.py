"""What jobs leave in the data folder: the table, their orders and their pictures."""
