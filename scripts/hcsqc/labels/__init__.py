"""Labels: joining them to crops, agreement of annotators, draws and folds."""
