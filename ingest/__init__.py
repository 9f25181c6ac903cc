"""Documents into the index: fetch, parse, chunk, embed. Imports storage only."""
