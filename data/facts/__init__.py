"""The embedded data set: counterfactual edits about cities, countries and elements."""
