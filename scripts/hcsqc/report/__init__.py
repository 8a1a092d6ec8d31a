"""The study's tables, report and audit of the paper."""
