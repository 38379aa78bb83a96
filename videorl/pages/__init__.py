"""Pages in the browser: the frame that all of them share, and each page in a file of its own."""
