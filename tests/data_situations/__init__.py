"""Data sets, weights and pictures as people have them, one situation a line of a table: what is there, and the answer."""
