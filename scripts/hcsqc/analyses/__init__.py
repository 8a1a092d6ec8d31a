"""What the labels support: ranking, learning curves, dose response, shift."""
