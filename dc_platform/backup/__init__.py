"""Copies of the lake, and ways back to what it was.

`store.py`: where backups lie and what each has. `create.py`: a consistent copy. `restore.py`: silver as
it was, in place. `mend.py`: bronze and quarantine get back what they lost. `fresh.py`: an empty lake
from a backup. `quiet.py`: landing stands still meanwhile. The runbook is docs/backup.md.
"""
