"""Quality control of a screen: a detector, its threshold, and flags."""
