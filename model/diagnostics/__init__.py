"""What fields, ensembles and forecasts are worth: statistics, products, scores."""
