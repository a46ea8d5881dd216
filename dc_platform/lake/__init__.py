"""The Delta Lake edge: the only package that imports deltalake.

`store` opens and creates tables, `parquet` writes data files, `table` commits them and reads
snapshots. Above this package there are only snapshots, files and versions.
"""
