"""The command line: each verb a thin layer over the workflow."""
