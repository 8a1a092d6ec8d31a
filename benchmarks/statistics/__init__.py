"""Error rates, power, promises and prevalences, in simulations whose answers are known."""
