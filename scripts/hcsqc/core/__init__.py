"""What every stage uses: errors, files, tables, keys, records, digests, the config."""
