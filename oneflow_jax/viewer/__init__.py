"""HTML pages, contact sheets, film strips and plots of samples, data and results."""
