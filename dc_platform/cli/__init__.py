"""`dcp`: one module per group of verbs.

Modules are imported at each start of the command, so they import only typer; what a verb needs it
imports when it runs.
"""
