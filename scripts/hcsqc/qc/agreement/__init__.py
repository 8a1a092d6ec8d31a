"""What a screen's flags are compared with: what was planted, and flags that others published."""
