"""Datasets: what the host builds, webdatasets and folders, as indexed samples with stable ids."""
