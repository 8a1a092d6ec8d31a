"""The page on which crops are labelled in the browser."""
