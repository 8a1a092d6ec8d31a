"""Features of crops under a frozen encoder, and tables of them."""
