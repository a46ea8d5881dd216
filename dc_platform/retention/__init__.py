"""What becomes old, or has to go: tiers by age, deletion by retention policy and by person, proofs.

Everything here works on the lake beside landing, and commits as compaction does. A deletion is in the
registry until it is done, each of its steps may be repeated, and a run that finds one that another run
left takes it to its end.
"""
