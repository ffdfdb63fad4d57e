"""The lake: tables of Parquet files, and the commits and manifest that say which ones count."""
