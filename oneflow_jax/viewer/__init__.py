"""What people look at: the page of a sampling run, contact sheets, film strips and plots."""
