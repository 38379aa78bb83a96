"""Several finished or unfinished runs side by side: scores, settings, cost, videos."""
