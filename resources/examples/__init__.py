"""One script a data set, from the raw folder to the evaluation."""
