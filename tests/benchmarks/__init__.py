"""Speed, measured and printed as tables; never part of a passing test."""
