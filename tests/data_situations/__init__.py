"""Data sets, weights and pictures as people have them, a situation a line: what is there, and the answer."""
