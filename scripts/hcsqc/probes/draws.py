"""How many draws a figure needs: for a mean, and for an interval or a verdict."""

# Fewer draws carry neither an interval nor a verdict: how much a score owes to the labels drawn is
# not known. Of one draw, intervals of 95% cover 85%, and verdicts of 5% are false 15% of the time.
FEWEST_DRAWS = 5
# Fewer draws carry no mean: which few labels were drawn decides the score. Such figures are marked.
FEWEST_DRAWS_OF_A_MEAN = 3


def few_draws(draws: int) -> str | None:
    """Return the mark of a figure that is the mean over too few draws; None if it is not."""
    if draws >= FEWEST_DRAWS_OF_A_MEAN:
        return None
    return f"{draws} draw{'s' if draws > 1 else ''}"
