"""Situations that a user's command may meet, as tables: bad input, damaged files, odd surroundings, other people.

`situation.py` says what a situation is and what counts as handled, `stock.py` makes what they start from, `starter.py`
and `commands.py` run their commands; each other file is a table of situations of one kind.
"""

from situations import (
    crowded,
    data,
    flags,
    hostile,
    makes,
    people,
    places,
    ranks,
    readers,
    results,
    runs,
    surroundings,
    writers,
)

TABLES = tuple(
    table.situations
    for table in (
        *(data, places, hostile, people, results, runs, readers, writers, crowded, ranks, makes, surroundings, flags),
    )
)
