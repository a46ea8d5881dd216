"""Full text over silver: which words an event has, and an index that says what it covers.

analysis.py   events to words, the same for the index, for what is not in it yet, and for queries
language.py   what a person types to a tree: words, "phrases", AND, OR, NOT, prefix*
scan.py       the tree as a condition of SQL over words: how events are searched without an index
index.py      the tree as a query of tantivy; the only module that imports it
state.py      which files of silver an index covers, as it says itself
coverage.py   an index beside a version of silver: covered, gone, not covered yet
build.py      silver into the index
work.py       what a build changes in it
home.py       where indexes lie
"""
