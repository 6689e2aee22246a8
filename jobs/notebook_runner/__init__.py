"""Runs notebooks in Databricks source format outside Databricks, pictures included."""
