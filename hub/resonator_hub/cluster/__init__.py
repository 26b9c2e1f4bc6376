"""Compute on a Dask cluster: its workers run stages as the hub's own pool does, confined."""
